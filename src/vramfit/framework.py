"""What a training framework does differently, as facts that formulas read; profiles by version live in ``frameworks``.

A profile says what happens when nothing is asked for: formats, optimizer, loss, how states are divided over ranks,
which buffers stand beside them, and what the figure counts that the framework prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vramfit.block_style import BlockStyle
from vramfit.result import Phase, Quantity
from vramfit.units import MIB

NO_MASTER = "none"


class Sharding(StrEnum):
    """How a framework divides states, gradients and weights over data-parallel ranks."""

    NONE = "none"  # it runs on one device
    DDP = "ddp"  # every rank holds all of them
    FSDP1 = "fsdp1"  # one flat parameter for each block, torch's FullyShardedDataParallel
    FSDP2 = "fsdp2"  # every parameter by its first axis, torch's fully_shard
    ZERO = "zero"  # DeepSpeed: states, then gradients, then weights
    MEGATRON = "megatron"  # buffers of weights and gradients; states over data and context parallelism


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Formats that one precision word stands for in one framework."""

    precision: str
    """The word of the request: ``bf16-mixed``."""
    parameter_format: str
    """Weights as they are kept between steps."""
    compute_format: str
    """Weights as matrices of the forward pass read them."""
    gradient_format: str
    """Gradients as they are kept until the optimizer's step."""
    master_format: str = NO_MASTER
    """A second, wider copy of the weights for the optimizer; ``none`` = the weights themselves are updated."""
    optimizer_state_format: str
    reduce_format: str
    """Gradients as they travel between ranks."""
    autocast: bool = False
    """True: torch casts weights and inputs of matrices as they are used, and keeps the casts of weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """Buffers through which gradients and weights travel. Elements unless said."""

    ddp_bytes: int = 25 * 2**20
    """Gradients that DDP reduces at once. [B] Source: torch/nn/parallel/distributed.py, bucket_cap_mb = 25."""
    gradients_in_buckets: bool = False
    """True: a gradient is a view of its bucket (``gradient_as_bucket_view``); False: buckets are a second copy."""
    reduce: int = 500_000_000
    """DeepSpeed's ``reduce_bucket_size``. Source: deepspeedai/DeepSpeed:deepspeed/runtime/zero/config.py."""
    all_gather: int = 500_000_000
    """DeepSpeed's ``allgather_bucket_size``, stages 1 and 2."""
    prefetch: int = 50_000_000
    """DeepSpeed's ``stage3_prefetch_bucket_size``: weights gathered ahead."""
    persistence: int = 100_000
    """DeepSpeed's ``stage3_param_persistence_threshold``: smaller weights stay whole on every rank."""
    max_live: int = 1_000_000_000
    """DeepSpeed's ``stage3_max_live_parameters``: weights that may be whole at once."""
    contiguous_gradients: bool = True
    """DeepSpeed's ``contiguous_gradients``: gradients are copied into a buffer as they appear."""
    overlap: bool = False
    """DeepSpeed's ``overlap_comm``: two buffers take turns, so that one fills while the other travels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What the caching allocator holds and cannot use at the peak, over what is allocated and was not loaded first."""

    low_ratio: float
    expected_ratio: float
    high_ratio: float
    source: str
    """Which runs it was measured on."""
    of_lengths: bool = False
    """True: holes come from batches that differ in length, so that only what grows with tokens makes any: what the
    optimizer step holds has the same size every time and finds the blocks that passes left."""

    @property
    def without(self) -> Phase:
        """The phase whose memory has no share in it."""
        return Phase.OPTIMIZER if self.of_lengths else Phase.LOAD

    @property
    def of(self) -> str:
        """What it is a share of."""
        less = "what the optimizer step holds" if self.of_lengths else "what is loaded before the first step"
        return f"the allocated peak less {less}"

    def __post_init__(self) -> None:
        """Check the order."""
        assert 0 <= self.low_ratio <= self.expected_ratio <= self.high_ratio, "low, expected, high"


KERNELS_AT_ONCE = 930 * MIB
"""Kernels of torch 1.10 with CUDA 11.3: 1025 MiB on a V100, 844 on an A100, by the contexts that memory/runtime.py
takes off what both were read at."""

FSDP1_FRAGMENTATION = Band(
    low_ratio=0.1,
    expected_ratio=0.35,
    high_ratio=0.5,
    source="two runs that print active and reserved memory (pytorch/torchtitan 83c879f18): 0.29 and 0.42 of what is "
    "not loaded first",
)
FSDP2_FRAGMENTATION = Band(
    low_ratio=0.1,
    expected_ratio=0.22,
    high_ratio=0.42,
    source="four runs that print active and reserved memory (pytorch/torchtitan 83c879f18): 0.19, 0.21, 0.23, 0.42 of "
    "what is not loaded first; a step of three more, replayed through a simulated allocator: 0.2 to 0.3",
)
"""Reserved over active memory where units are gathered and given back all the time."""
ZERO_FRAGMENTATION = Band(
    low_ratio=0.0,
    expected_ratio=0.1,
    high_ratio=0.4,
    source="buffers of fixed size are taken once; steps replayed through a simulated allocator have 0 to 0.36",
)
"""Where DeepSpeed divides states, whichever framework hands over to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterDefaults:
    """What an adapter is when the request leaves it open."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Names of modules, or ``all-linear``."""
    format: str
    """Format of its weights; ``parameters`` = as the base computes."""
    dropout: float
    source: str
    by_family: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Targets of families (``model_type``) that name their modules otherwise."""

    def targets_of(self, family: str) -> tuple[str, ...]:
        """Return the targets for a family."""
        return dict(self.by_family).get(family, self.targets)


_FUSED, _NAMED = ("query_key_value",), ("query", "value")
PEFT_TARGETS = (
    ("gpt2", ("c_attn",)), ("gpt_bigcode", ("c_attn",)), ("bloom", _FUSED), ("gpt_neox", _FUSED), ("chatglm", _FUSED),
    ("falcon", _FUSED), ("RefinedWeb", _FUSED), ("RefinedWebModel", _FUSED), ("mpt", ("Wqkv",)), ("bert", _NAMED),
    ("roberta", _NAMED), ("xlm-roberta", _NAMED), ("electra", _NAMED), ("t5", ("q", "v")), ("mt5", ("q", "v")),
    ("phi", ("q_proj", "v_proj", "fc1", "fc2")), ("codegen", ("qkv_proj",)), ("qwen", ("c_attn",)),
    ("nemotron_h", ("q_proj", "k_proj", "v_proj", "o_proj")), ("rwkv", ("key", "value", "receptance", "output")),
    ("phi3", ("qkv_proj",)), ("internlm2", ("wqkv",)), ("baichuan", ("W_pack",)),
)  # fmt: skip
"""What peft takes where nothing is asked for; the last three are not in its table and must be named there: the fused
matrix of queries, keys and values. Source: huggingface/peft:src/peft/utils/constants.py."""

PEFT = AdapterDefaults(
    rank=8,
    alpha=8.0,
    targets=("q_proj", "v_proj"),
    format="fp32",
    dropout=0.0,
    source="huggingface/peft:src/peft/tuners/lora/config.py (r, lora_alpha, lora_dropout); "
    "src/peft/utils/constants.py (targets of llama and its relatives); autocast_adapter_dtype (fp32)",
    by_family=PEFT_TARGETS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """One framework at one version (or from that version on)."""

    name: str
    version: str
    """First version for which the facts hold."""
    month: str = ""
    """Month from which on they hold, for versions given as a commit with its date: ``2024-06``, or the
    day, ``2024-04-10``; empty = ever since."""
    checked: str
    """What the facts were read from or measured on."""
    recipes: tuple[Recipe, ...]
    """One for every precision word that it takes."""
    precision: str
    """Word taken when none is asked for."""
    optimizer: str = "adamw"
    optimizer_implementation: str = "foreach"
    loss: str = "plain"
    attention: str = "sdpa"
    recompute: str = "none"
    compile: bool = False
    method: str = "full"
    base_format: str = "nf4-dq"
    """Storage of the frozen base under ``qlora``."""
    wide_base: bool = False
    """True: what is not quantised of a quantised base is held in fp32 (peft's ``prepare_model_for_kbit_training``)."""
    adapter: AdapterDefaults = PEFT
    style: BlockStyle = BlockStyle()  # noqa: RUF009 - frozen
    sharding: Sharding = Sharding.FSDP2
    """How ``dp_shard`` divides."""
    deepspeed: bool = False
    """True: a plan that names a ``zero_stage`` is carried out by DeepSpeed."""
    whole_ends: bool = True
    """FSDP: embedding and output projection stay whole from the forward pass to the end of the backward pass, because
    they belong to the outermost unit; False: each is a unit of its own."""
    zero_stage: int = 3
    """What ``dp_shard`` divides when the plan does not say: 0 nothing, 1 states, 2 gradients too, 3 weights too."""
    reshard_after_forward: bool = True
    distributed_optimizer: bool = False
    """Megatron: whether states are divided over data-parallel ranks."""
    sequence_parallel: bool = True
    """Whether tensor-parallel ranks divide the tokens between their matrices."""
    expert_tensor_parallel: bool = False
    """Whether experts are divided by ``tp`` too when the plan does not say ``etp``."""
    pp_schedule: str = "1f1b"
    global_batch: int | None = None
    """Sequences of one step on all ranks, which decides how often gradients are accumulated; None = once."""
    buckets: Buckets = Buckets()
    trains_prediction: bool = False
    """True: multi-token-prediction layers of the configuration are built and trained."""
    adds_up_whole: bool = False
    """FSDP: gradients of several micro-batches add up whole on every rank and travel once (``no_sync``)."""
    mixes_frozen: bool = False
    """FSDP1: frozen and trained weights of a block share one flat parameter, so that all of it gets a gradient."""
    clips_gradients: bool = False
    """Whether gradients are scaled to a greatest norm before the step."""
    set_to_none: bool = True
    """True: gradients are given back after the step; False: they are zeroed and stay."""
    fragmentation: Band
    packs_head: bool = False
    """Whether the output projection of a quantised base is quantised too."""
    stacks_shared_experts: bool = False
    """True: the matrices of shared experts are stacks of one, whose first axis FSDP2 cannot divide: it pads what the
    other ranks have, and each of them holds and moves all of it (torchtitan to 2025-08)."""
    loss_of_families: tuple[tuple[str, str], ...] = ()
    """Loss heads of families (``model_type``) whose published recipes take another."""
    records_streams: bool = False
    """True: what tensor-parallel collectives read and write is given back when the device is done with them, not when
    the program is."""
    kernel_bytes: int | None = None
    """Code of kernels that is loaded at once; None = lazily, as CUDA does from 11.7 on."""
    counts: Quantity = Quantity.ALLOCATED_PEAK
    """What the figure is that it prints."""
    not_counted: tuple[str, ...] = ()
    """What it may also allocate and is left out, with the reason."""

    def fragmented_by(self, sharding: Sharding) -> Band:
        """Return the band of how states are divided: FSDP's, DeepSpeed's, or of this framework alone."""
        divided = {
            Sharding.FSDP1: FSDP1_FRAGMENTATION,
            Sharding.FSDP2: FSDP2_FRAGMENTATION,
            Sharding.ZERO: ZERO_FRAGMENTATION,
        }
        return divided.get(sharding, self.fragmentation)

    def recipe(self, precision: str) -> Recipe | None:
        """Return the formats of a precision word; None = this framework has no such recipe."""
        return next((r for r in self.recipes if r.precision == precision), None)
