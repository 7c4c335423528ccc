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
OFFLOAD_TARGETS = ("cpu", "nvme")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterAsked:
    """The small set of weights that is trained on a frozen base."""

    rank: int | None = None
    """None = the framework's default."""
    alpha: float | None = None
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
class Training:
    """One training workload; ``None`` means that the framework decides, and the answer says how."""

    framework: str = "pytorch"
    framework_version: str | None = None
    """None = the newest profile known."""
    method: str = "full"
    objective: str = "next-token"
    """What the loss is made of: next tokens, or preferences and rewards with further models beside the trained one."""
    micro_batch: int = 1
    """Sequences of one forward pass on one rank."""
    sequence_tokens: int | None = None
    """Tokens of one sequence; None = the positions the model was made for, as far as a stated cap."""
    gradient_accumulation_steps: int | None = None
    precision: str | None = None
    parameter_format: str | None = None
    gradient_format: str | None = None
    master_format: str | None = None
    """``none`` = no master copy."""
    optimizer_state_format: str | None = None
    reduce_format: str | None = None
    optimizer: str | None = None
    optimizer_implementation: str | None = None
    optimizer_in_backward: bool | None = None
    recompute: str | None = None
    recompute_modules: tuple[str, ...] | None = None
    attention: str | None = None
    loss: str | None = None
    loss_chunk_tokens: int | None = None
    compile: bool | None = None
    adapter: AdapterAsked | None = None
    base_format: str | None = None
    """Storage of the frozen base; None = as the parameters."""
    offload: OffloadAsked | None = None
    freeze: tuple[str, ...] | None = None
    """Patterns of module names that do not train."""
    image_height: int | None = None
    image_width: int | None = None
    frames: int | None = None

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
