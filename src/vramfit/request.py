"""What is asked: the workload, the plan and the engine, in the words of the request JSON, version 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from vramfit.errors import InvalidValueError
from vramfit.units import Size, check_size, is_array

ATTENTIONS = ("flash", "flashinfer", "sdpa", "efficient", "eager", "triton")
OFFLOADS = ("none", "model", "sequential")
COUNTS = (
    "max_num_seqs", "max_num_batched_tokens", "block_tokens", "slots", "ubatch_tokens", "batch_tokens",
    "speculative_tokens", "max_loras", "max_lora_rank", "image_height", "image_width", "frames",
)  # fmt: skip
"""Fields of a serving workload that are positive integers when given."""
KNOBS = (
    *COUNTS, "memory_fraction", "eager", "prefix_caching", "chunked_prefill", "gpu_layers", "flash_attention",
    "swa_full", "draft_model", "offload",
)  # fmt: skip
"""Fields that only some engines take."""
MOST_RANKS = 65536
DEGREES = ("dp_replicate", "dp_shard", "tp", "pp", "cp", "ep", "etp", "virtual_stages", "micro_batches")
OPEN_DEGREES = frozenset({"etp", "virtual_stages", "micro_batches"})
TRAINING_ONLY = (
    "dp_shard", "cp", "ep", "etp", "zero_stage", "sequence_parallel", "pp_schedule", "virtual_stages",
    "micro_batches", "distributed_optimizer", "reshard_after_forward", "layers_per_stage",
)  # fmt: skip
"""Fields of a plan that no server takes."""
ZERO_STAGES = (0, 1, 2, 3)
PP_SCHEDULES = ("gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "zb-v", "v-half", "v-min", "dualpipe-v")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One serving or library-inference workload; ``None`` means that the tool decides and says how.

    Sizes may be integer arrays: the answer's sizes are then arrays too.
    """

    engine: str = "generic"
    engine_version: str | None = None
    """None = the newest profile known."""
    weight_format: str = "auto"
    """``auto`` = what the checkpoint says."""
    group_size: int | None = None
    """Elements per scale of grouped weight formats; None = the format's usual one."""
    kv_format: str = "auto"
    """``auto`` = the engine's own default: the model's 16-bit format."""
    kv_format_k: str | None = None
    """Format of the keys when it differs from the values'; None = ``kv_format``."""
    kv_format_v: str | None = None
    """Format of the values when it differs from the keys'; None = ``kv_format``."""
    context_tokens: Size = None
    """Longest sequence held: prompt and new tokens together."""
    prompt_tokens: Size = None
    """Tokens of one prompt, processed in one pass; None = all of the context, less the new tokens."""
    new_tokens: Size = None
    """Tokens generated per sequence; None = the rest of the context."""
    batch: Size = 1
    """Sequences held at once."""
    attention: str | None = None
    """Attention implementation; None = the engine's default."""
    max_num_seqs: int | None = None
    """Most sequences a scheduler runs at once; None = the engine's default for the device."""
    max_num_batched_tokens: int | None = None
    """Most tokens of one pass; None = the engine's default for the device."""
    memory_fraction: float | None = None
    """Share of the device that the engine may take, as it defines it; None = the engine's default."""
    eager: bool | None = None
    """True: no CUDA graphs; None = the engine's default."""
    prefix_caching: bool | None = None
    """Whether finished prefixes stay in the cache; None = the engine's default."""
    chunked_prefill: bool | None = None
    """Whether long prompts are cut into passes; None = the engine's default."""
    block_tokens: int | None = None
    """Tokens of one page of the cache; None = the engine's default."""
    slots: int | None = None
    """Sequences that llama.cpp serves at once, sharing its context; None = its default."""
    ubatch_tokens: int | None = None
    """llama.cpp's physical batch; None = its default."""
    batch_tokens: int | None = None
    """llama.cpp's logical batch; None = its default."""
    gpu_layers: int | None = None
    """Layers that llama.cpp puts on devices; None = all."""
    flash_attention: bool | None = None
    """Whether llama.cpp uses flash attention; None = its default."""
    swa_full: bool | None = None
    """True: llama.cpp caches the whole context in sliding-window layers; None = its default."""
    draft_model: str | None = None
    """Model that drafts tokens for speculative decoding; None = there is none."""
    speculative_tokens: int | None = None
    """Tokens drafted ahead; None = no speculation."""
    max_loras: int | None = None
    """Adapters held at once; None = no adapters are served."""
    max_lora_rank: int | None = None
    """Largest rank of an adapter; None = the engine's default."""
    image_height: int | None = None
    """Height of a generated image; None = the pipeline's default. [pixels]"""
    image_width: int | None = None
    """Width of a generated image; None = the pipeline's default. [pixels]"""
    frames: int | None = None
    """Frames of a generated video; None = the pipeline's default."""
    offload: str | None = None
    """Which parts of a pipeline wait on the host; None = none."""

    def __post_init__(self) -> None:
        """Check every size and name that can be checked without a model."""
        for name in ("context_tokens", "prompt_tokens", "batch"):
            if getattr(self, name) is not None:
                check_size(getattr(self, name), f"workload.{name}")
        if self.new_tokens is not None:
            check_size(self.new_tokens, "workload.new_tokens", smallest=0)
        if self.attention is not None and self.attention not in ATTENTIONS:
            raise InvalidValueError("workload.attention", self.attention, f"one of {', '.join(ATTENTIONS)}")
        if self.offload is not None and self.offload not in OFFLOADS:
            raise InvalidValueError("workload.offload", self.offload, f"one of {', '.join(OFFLOADS)}")
        for name in COUNTS:
            if getattr(self, name) is not None:
                check_size(getattr(self, name), f"workload.{name}")
        if self.gpu_layers is not None:
            check_size(self.gpu_layers, "workload.gpu_layers", smallest=0)
        if self.memory_fraction is not None and not 0 < self.memory_fraction <= 1:
            raise InvalidValueError("workload.memory_fraction", self.memory_fraction, "a share above 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the work is cut over devices (torchtitan's vocabulary); every degree defaults to 1."""

    dp_replicate: int = 1
    """Full copies of the model, each with its own ``batch``."""
    dp_shard: int = 1
    """Ranks over which FSDP or ZeRO divides states (and weights); each has its own batch. Training only."""
    tp: int = 1
    """Tensor parallelism: every matrix divided."""
    pp: int = 1
    """Pipeline parallelism: layers divided into stages."""
    vocab_tp: bool = True
    """True: tensor parallelism divides the vocabulary too."""
    cp: int = 1
    """Context parallelism: the sequence divided. Training only."""
    ep: int = 1
    """Expert parallelism: experts divided over ranks of data (and context) parallelism. Training only."""
    etp: int | None = None
    """Tensor parallelism inside experts; None = ``tp``. Training only."""
    zero_stage: int | None = None
    """What is divided over ``dp_shard``: 0 nothing, 1 states, 2 gradients too, 3 weights too; None = the default."""
    sequence_parallel: bool | None = None
    """Whether tensor-parallel ranks divide the tokens between their matrices; None = the framework's default."""
    pp_schedule: str | None = None
    """Order of micro-batches over the stages; None = the framework's default."""
    virtual_stages: int | None = None
    """Pieces of the model on each pipeline rank; None = one, or the schedule's own."""
    micro_batches: int | None = None
    """Micro-batches of one step that go through the pipeline; None = as many as stages."""
    distributed_optimizer: bool | None = None
    """Whether Megatron divides states over data-parallel ranks; None = the framework's default."""
    reshard_after_forward: bool | None = None
    """Whether FSDP gives a unit's gathered weights back after its forward; None = the framework's default."""
    layers_per_stage: tuple[int, ...] | None = None
    """Layers of every stage, where they are not even; None = as even as possible."""

    def __post_init__(self) -> None:
        """Check that every degree is a small positive integer."""
        for name in DEGREES:
            value = getattr(self, name)
            if value is None and name in OPEN_DEGREES:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_RANKS:
                raise InvalidValueError(f"plan.{name}", value, f"an integer from 1 to {MOST_RANKS}")
        if self.zero_stage is not None and self.zero_stage not in ZERO_STAGES:
            raise InvalidValueError("plan.zero_stage", self.zero_stage, "0, 1, 2 or 3")
        if self.pp_schedule is not None and self.pp_schedule not in PP_SCHEDULES:
            raise InvalidValueError("plan.pp_schedule", self.pp_schedule, f"one of {', '.join(PP_SCHEDULES)}")

    @property
    def num_devices(self) -> int:
        """Devices that the plan takes; expert parallelism takes none of its own."""
        return self.dp_replicate * self.dp_shard * self.tp * self.pp * self.cp


_ONE_DEVICE = Plan()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question, as a file, a command line or a caller puts it."""

    model: str | None = None
    """Hub id, catalogue name or path; None = ``config`` is given."""
    config: Mapping[str, object] | None = None
    """Content of a ``config.json``; takes the place of looking ``model`` up."""
    workload: Inference
    plan: Plan = Plan()
    device: str | None = None
    """Catalogue name or alias; None = no verdict on a card is asked for."""
    device_count: int | None = None
    """Devices in all; None = as many as the plan takes."""
    device_memory_bytes: int | None = None
    """What this card really reports; None = the catalogue's figure. [B]"""
    headroom_bytes: int = 0
    """What the user wants left free on every device. [B]"""


def refuse_arrays(workload: Inference, advice: str) -> None:
    """Refuse arrays of sizes, where one question is answered at a time.

    Raises:
        InvalidValueError: the field, and the advice.
    """
    for name in ("context_tokens", "prompt_tokens", "new_tokens", "batch"):
        value = getattr(workload, name)
        if value is not None and is_array(value):
            raise InvalidValueError(f"workload.{name}", "an array", "one integer", advice)


def refuse_training_plan(plan: Plan) -> None:
    """Refuse fields of a plan that no server takes, rather than ignore them.

    Raises:
        InvalidValueError: the field.
    """
    for name in TRAINING_ONLY:
        if getattr(plan, name) != getattr(_ONE_DEVICE, name):
            raise InvalidValueError(
                f"plan.{name}",
                getattr(plan, name),
                "it to be left out of a plan for serving",
                "it divides training; for serving divide with tp and pp, copy with dp_replicate",
            )


def field_names(kind: type) -> tuple[str, ...]:
    """Names of a noun's fields, in order."""
    return tuple(f.name for f in fields(kind))


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One field of a request as somebody else's words give it: a command line, a log."""

    path: str
    """``model``, ``workload.context_tokens``, ``plan.tp`` ..."""
    value: object
    said: str
    """The words: ``--max-model-len 32768``."""


def request_of(given: Iterable[Given]) -> Request:
    """Return the request that these fields make up; what none of them gives stays open.

    Raises:
        InvalidValueError: two of them contradict one another, or a value cannot be.

    >>> request_of([Given(path="model", value="x", said="x"), Given(path="plan.tp", value=2, said="-tp 2")]).plan.tp
    2
    """
    found: dict[str, Given] = {}
    for each in given:
        before = found.setdefault(each.path, each)
        if before.value != each.value:
            raise InvalidValueError(each.path, f"{before.said} and {each.said}", "one of them", "they contradict")
    parts: dict[str, dict[str, Any]] = {"": {}, "workload": {}, "plan": {}}
    for path, each in found.items():
        part, _, name = path.rpartition(".")
        parts[part][name] = each.value
    return Request(workload=Inference(**parts["workload"]), plan=Plan(**parts["plan"]), **parts[""])
