"""What is asked of a training run, in the words of the request JSON, version 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vramfit.errors import InvalidValueError
from vramfit.request import Plan
from vramfit.units import check_size

METHODS = ("full", "lora", "rslora", "dora", "qlora", "gptq-lora", "adapter", "prompt-tuning")
OBJECTIVES = ("next-token", "dpo", "orpo", "reward", "ppo", "grpo")
PRECISIONS = ("fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed", "fp8-mixed")
OPTIMIZERS = (
    "adamw", "adamw-8bit", "paged-adamw", "paged-adamw-8bit", "adam", "sgd", "sgd-momentum", "adafactor", "lion",
    "muon", "galore", "apollo", "shampoo", "soap", "sophia", "came",
)  # fmt: skip
IMPLEMENTATIONS = ("foreach", "fused", "for-loop")
RECOMPUTES = ("none", "full", "selective", "offload")
TRAINING_ATTENTIONS = ("flash", "sdpa", "efficient", "cudnn", "flex", "eager")
LOSSES = ("plain", "fp32", "chunked", "fused", "fused-linear")
OWN_LOSSES = frozenset({"qwen"})
"""Families whose own code shifts a copy of the logits and takes the loss of them in their own format.
Source: Qwen/Qwen-7B:modeling_qwen.py, QWenLMHeadModel.forward."""
OFFLOAD_TARGETS = ("cpu", "nvme")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterAsked:
    """The small set of weights that is trained on a frozen base."""

    rank: int | None = None
    """None = the framework's default."""
    alpha: float | None = None
    """Scale of what it adds, before division by the rank; None = the framework's default."""
    targets: tuple[str, ...] | None = None
    """Names of the modules that get one; ``all-linear`` = every linear layer but the head. None = the default."""
    format: str | None = None
    """Format of its weights; None = the framework's default."""
    modules_to_save: tuple[str, ...] = ()
    """Modules trained whole beside it."""
    dropout: float | None = None
    """Share of its input that is dropped; None = the framework's default."""

    def __post_init__(self) -> None:
        """Check the rank."""
        if self.rank is not None:
            check_size(self.rank, "workload.adapter.rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadAsked:
    """What waits outside the device between uses; None = it stays on the device."""

    parameters: str | None = None
    gradients: str | None = None
    optimizer: str | None = None
    activations: str | None = None

    def __post_init__(self) -> None:
        """Check the places."""
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value not in OFFLOAD_TARGETS:
                raise InvalidValueError(f"workload.offload.{name}", value, f"one of {', '.join(OFFLOAD_TARGETS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketsAsked:
    """Buffers through which DeepSpeed moves gradients and weights. Elements; None = DeepSpeed's own."""

    reduce: int | None = None
    """``reduce_bucket_size``: gradients that are reduced together."""
    prefetch: int | None = None
    """``stage3_prefetch_bucket_size``: weights gathered ahead."""
    persistence: int | None = None
    """``stage3_param_persistence_threshold``: smaller weights stay whole on every rank; 0 = none do."""
    max_live: int | None = None
    """``stage3_max_live_parameters``: weights that may be whole at once."""
    overlap: bool | None = None
    """``overlap_comm``: two buckets take turns."""
    by_hidden_size: bool = False
    """True: sizes that are not given follow the hidden size, as Hugging Face fills in ``auto``."""

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name, smallest in (("reduce", 1), ("prefetch", 0), ("persistence", 0), ("max_live", 1)):
            if getattr(self, name) is not None:
                check_size(getattr(self, name), f"workload.buckets.{name}", smallest=smallest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training workload; ``None`` means that the framework decides, and the answer says how."""

    framework: str = "pytorch"
    framework_version: str | None = None
    """None = the newest profile known."""
    method: str = "full"
    """Which weights are trained, and how."""
    objective: str = "next-token"
    """What the loss is made of: next tokens, or preferences and rewards with further models beside the trained one."""
    micro_batch: int = 1
    """Sequences of one forward pass on one rank."""
    sequence_tokens: int | None = None
    """Tokens of one sequence; None = the positions the model was made for, as far as a stated cap."""
    gradient_accumulation_steps: int | None = None
    """Micro-batches of one optimizer step on one rank; None = one."""
    precision: str | None = None
    """Number formats of the run as a whole; None = the framework's default."""
    parameter_format: str | None = None
    """Storage of the trained weights; None = as the precision and the framework have it."""
    gradient_format: str | None = None
    """Storage of their gradients; None = as the precision and the framework have it."""
    master_format: str | None = None
    """``none`` = no master copy."""
    optimizer_state_format: str | None = None
    """Storage of the optimizer's moments; None = the optimizer's own."""
    reduce_format: str | None = None
    """Format in which gradients are summed over ranks; None = the framework's."""
    optimizer: str | None = None
    optimizer_implementation: str | None = None
    """How its step runs over the weights; None = the framework's choice."""
    optimizer_in_backward: bool | None = None
    """True: each weight is updated as soon as its gradient is there, which is then dropped."""
    recompute: str | None = None
    """What backward computes again instead of keeping; None = the framework's default."""
    recompute_modules: tuple[str, ...] | None = None
    """With ``selective``, what is computed again; None = the framework's own list."""
    attention: str | None = None
    """Attention implementation; None = the framework's default."""
    loss: str | None = None
    """How logits and loss are computed; None = the framework's default."""
    loss_chunk_tokens: int | None = None
    """Tokens of one chunk of a chunked loss; None = the framework's."""
    compile: bool | None = None
    """Whether torch.compile fuses the model; None = the framework's default."""
    adapter: AdapterAsked | None = None
    base_format: str | None = None
    """Storage of the frozen base; None = as the parameters."""
    offload: OffloadAsked | None = None
    """None = everything stays on the device."""
    buckets: BucketsAsked | None = None
    """None = the framework's own."""
    freeze: tuple[str, ...] | None = None
    """Patterns of module names that do not train."""
    image_height: int | None = None
    """Height of a trained image. [pixels]"""
    image_width: int | None = None
    """Width of a trained image. [pixels]"""
    frames: int | None = None
    """Frames of a trained video."""

    def __post_init__(self) -> None:
        """Check every size and name that can be checked without a model."""
        for name in (
            "micro_batch", "sequence_tokens", "gradient_accumulation_steps", "loss_chunk_tokens",
            "image_height", "image_width", "frames",
        ):  # fmt: skip
            if getattr(self, name) is not None:
                check_size(getattr(self, name), f"workload.{name}")
        known = {
            "method": METHODS, "objective": OBJECTIVES, "precision": PRECISIONS, "optimizer": OPTIMIZERS,
            "optimizer_implementation": IMPLEMENTATIONS, "recompute": RECOMPUTES,
            "attention": TRAINING_ATTENTIONS, "loss": LOSSES,
        }  # fmt: skip
        for name, values in known.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                raise InvalidValueError(f"workload.{name}", value, f"one of {', '.join(values)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """One question about training, as a file, a command line or a caller puts it."""

    model: str | None = None
    """Hub id, catalogue name or path; None = ``config`` is given."""
    config: Mapping[str, object] | None = None
    """Content of a ``config.json``; takes the place of looking ``model`` up."""
    workload: Training
    plan: Plan = Plan()  # noqa: RUF009 - frozen
    device: str | None = None
    """Catalogue name or alias; None = no verdict on a card is asked for."""
    device_count: int | None = None
    """Devices in all; None = as many as the plan takes."""
    device_memory_bytes: int | None = None
    """What this card really reports; None = the catalogue's figure. [B]"""
    headroom_bytes: int = 0
    """What the user wants left free on every device. [B]"""
