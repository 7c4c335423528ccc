"""One small program that runs alike on a real GPU and on one that is not there, described by data alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from vramfit.errors import InvalidValueError
from vramfit.names import nearest
from vramfit.units import check_size

TASKS = ("train", "infer", "generate")
PRECISIONS = ("fp32", "bf16", "fp16", "bf16-mixed", "fp16-mixed")
"""``bf16`` and ``fp16``: everything in that format; ``-mixed``: weights in fp32 under autocast."""
OPTIMIZERS = ("adamw", "adam", "sgd", "sgd-momentum", "adafactor", "adamw-8bit")
IMPLEMENTATIONS = ("foreach", "fused", "for-loop")
RECOMPUTES = ("none", "full")
LONGEST_ID = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Everything needed to run one program again: which builder makes the model, and how it is driven."""

    builder: str
    """Name of the function that makes the model and its inputs."""
    arguments: Mapping[str, object] = field(default_factory=dict)
    """What the builder is called with: numbers, texts, booleans and lists of them."""
    task: str = "train"
    batch: int = 1
    """Samples of one forward pass."""
    sequence_tokens: int | None = None
    """Length of each sample; None = the builder's inputs have none, or have one of their own."""
    new_tokens: int | None = None
    """Tokens that ``generate`` appends; None = the task is another one."""
    precision: str = "fp32"
    optimizer: str = "adamw"
    optimizer_implementation: str | None = None
    """None = what PyTorch takes by itself."""
    recompute: str = "none"
    clip_norm: float | None = None
    """Largest norm of all gradients together; None = they are not clipped."""
    gradient_accumulation_steps: int = 1
    steps: int = 3
    """How often the whole is repeated: optimizer steps, forward passes or generations."""
    alloc_conf: str = ""
    """Content of PYTORCH_CUDA_ALLOC_CONF."""
    cudnn_benchmark: bool = False
    """Whether cuDNN tries its algorithms before it chooses one."""
    lora_rank: int | None = None
    """Rank of LoRA adapters on every linear layer but the head; None = all weights train."""

    def __post_init__(self) -> None:
        """Check every size and every name of a fixed set."""
        for name in ("batch", "sequence_tokens", "new_tokens", "gradient_accumulation_steps", "steps", "lora_rank"):
            if getattr(self, name) is not None:
                check_size(getattr(self, name), f"workload.{name}")
        known = {
            "task": TASKS, "precision": PRECISIONS, "optimizer": OPTIMIZERS, "recompute": RECOMPUTES,
            "optimizer_implementation": IMPLEMENTATIONS,
        }  # fmt: skip
        for name, values in known.items():
            seen = getattr(self, name)
            if seen is not None and seen not in values:
                close = nearest(str(seen), values)
                hint = f"nearest: {', '.join(close)}" if close else ""
                raise InvalidValueError(f"workload.{name}", seen, f"one of {', '.join(values)}", hint)


def said(workload: Workload) -> dict[str, object]:
    """Return the fields that differ from their defaults, for JSON.

    >>> said(Workload(builder="mlp", batch=8))
    {'builder': 'mlp', 'batch': 8}
    """
    plain = Workload(builder="")
    values = ((each.name, getattr(workload, each.name)) for each in fields(workload))
    return {name: value for name, value in values if value != getattr(plain, name)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedWorkload:
    """One row of a table of workloads: the program, and what a measurer should know before running it."""

    id: str
    workload: Workload
    order: int
    """Rows of order 1 run first: those from which most is learnt."""
    needs_gib: float
    """Memory below which a card is not tried; an upper guess that only decides what is skipped. [GiB]"""
    packages: tuple[str, ...] = ()
    """What must be importable beside torch."""
    snapshot: bool = False
    """Whether the allocator's history is written to a file too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest:
    """One question about a workload that is to be traced."""

    workload: Workload
    device: str | None = None
    """Catalogue name or alias; None = as large as needed."""
    device_memory_bytes: int | None = None
    """What this card really reports; None = the catalogue's figure. [B]"""
    torch_version: str | None = None
    """Version that ran, e.g. ``2.11.0+cu128``; None = the one at hand."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of further packages that ran."""
