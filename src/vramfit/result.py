"""What is answered: items with their reasons, summed over time, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import reduce

from vramfit.device import Price
from vramfit.request import Plan, Request
from vramfit.units import Size, larger


class Basis(StrEnum):
    """How we know a number."""

    EXACT = "exact"  # read from a file
    DERIVED = "derived"  # a formula over the model's facts
    MEASURED = "measured"  # a constant from a named run
    ASSUMED = "assumed"  # the input did not say


class Phase(StrEnum):
    """When in time memory is alive."""

    LOAD = "load"
    PREFILL = "prefill"
    SAMPLE = "sample"  # logits of the prompt and the choice of the first token: the layers are done by then
    DECODE = "decode"
    ROLLOUT = "rollout"  # sequences are generated to learn from
    FORWARD = "forward"  # of a training step: activations pile up
    LOSS = "loss"  # logits, loss and the first gradient
    BACKWARD = "backward"  # activations drain, gradients appear
    OPTIMIZER = "optimizer"  # the step itself
    EVALUATION = "evaluation"
    SAVE = "save"


class Counter(StrEnum):
    """The smallest of the three readings that shows an item: torch allocated, torch reserved, the process."""

    ALLOCATED = "allocated"  # torch.cuda.max_memory_allocated
    RESERVED = "reserved"  # torch.cuda.max_memory_reserved
    PROCESS = "process"  # nvidia-smi


SEEN_BY = {
    Counter.ALLOCATED: frozenset({Counter.ALLOCATED}),
    Counter.RESERVED: frozenset({Counter.ALLOCATED, Counter.RESERVED}),
    Counter.PROCESS: frozenset(Counter),
}
"""What each reading includes: nvidia-smi sees everything, torch's reserved figure what torch allocated, and so on."""

ALWAYS = (Phase.LOAD, Phase.PREFILL, Phase.SAMPLE, Phase.DECODE)
"""The phases of inference."""
WHILE_TRAINING = (
    Phase.LOAD, Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.OPTIMIZER, Phase.EVALUATION, Phase.SAVE,
)  # fmt: skip
"""The phases of training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that occupies memory on one rank, and why."""

    name: str
    """Slash path, coarse to fine: ``weights/attention``."""
    bytes: Size
    low_bytes: Size
    high_bytes: Size
    phases: tuple[Phase, ...]
    basis: Basis
    formula: str
    """The expression with this model's numbers in it."""
    source: str
    counter: Counter = Counter.ALLOCATED


def exactly(name: str, size: Size, phases: tuple[Phase, ...], formula: str, source: str, basis: Basis) -> Item:
    """Make an item whose low and high are its expected bytes."""
    return Item(
        name=name,
        bytes=size,
        low_bytes=size,
        high_bytes=size,
        phases=phases,
        basis=basis,
        formula=formula,
        source=source,
    )


class Quantity(StrEnum):
    """What an engine or a counter prints, in the words of measured runs."""

    WEIGHTS = "weights"  # bytes the engine says its weights take
    KV_CACHE = "kv_cache"  # bytes of the pool
    KV_CACHE_TOKENS = "kv_cache_tokens"  # tokens that it holds
    REQUESTS_AT_CONTEXT = "requests_at_context"  # sequences of the longest context that it holds
    ACTIVATION_PEAK = "activation_peak"  # transient memory of the profiling pass
    NON_TORCH = "non_torch"  # growth outside the allocator while profiling
    BEFORE_WEIGHTS = "before_weights"  # taken before weights load
    CUDA_GRAPHS = "cuda_graphs"  # pools of captured graphs
    MODEL_BUFFER = "model_buffer"  # llama.cpp's buffers on the device ...
    KV_BUFFER = "kv_buffer"
    COMPUTE_BUFFER = "compute_buffer"
    RECURRENT_STATE = "recurrent_state"
    HOST_MODEL_BUFFER = "host_model_buffer"  # ... and on the host
    HOST_COMPUTE_BUFFER = "host_compute_buffer"
    LOADED = "loaded"  # allocated after loading, before the first call
    REQUESTED_PEAK = "requested_peak"  # what torch's tensors asked for, before rounding
    ALLOCATED_PEAK = "allocated_peak"  # torch.cuda.max_memory_allocated
    ACTIVE_PEAK = "active_peak"  # torch's active bytes
    RESERVED_PEAK = "reserved_peak"  # torch.cuda.max_memory_reserved
    PROCESS_PEAK = "process_peak"  # nvidia-smi


COUNTED = frozenset({Quantity.KV_CACHE_TOKENS, Quantity.REQUESTS_AT_CONTEXT})
"""Quantities that are counts; all others are bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One figure that an engine or a counter would print on one rank, predicted."""

    quantity: Quantity
    value: Size | float
    """Bytes, or a count for the quantities in ``COUNTED``; a fraction only where the engine prints one."""
    low: Size | float
    high: Size | float
    formula: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a server may take on one rank, whatever the job needs."""

    limit_bytes: int
    """Everything but ``outside`` must stay below it. [B]"""
    outside: tuple[str, ...]
    """Beginnings of names of items that the engine does not count against it."""
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """Sum of the items alive at one moment. [B]"""

    low_bytes: Size
    expected_bytes: Size
    high_bytes: Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """What one rank holds over time; the peak is the largest phase, never the sum of all rows."""

    rank: str
    """Which rank this is, and how many are like it: ``"stage 0 of 2 (4 ranks)"``."""
    num_ranks: int
    items: tuple[Item, ...]
    readings: tuple[Reading, ...] = ()
    """What the engine would print here."""
    reservation: Reservation | None = None
    """None = the engine takes what it needs."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Phases in which anything is alive, in order of time."""
        alive = {phase for item in self.items for phase in item.phases}
        return tuple(phase for phase in Phase if phase in alive)

    def totals(self, counter: Counter = Counter.PROCESS) -> dict[Phase, Total]:
        """Sum the items alive in each phase, as seen by one of the three counters; phases in order of time."""
        sums: dict[Phase, list[Size]] = {phase: [0, 0, 0] for phase in self.phases}
        shown = SEEN_BY[counter]
        for item in self.items:
            if item.counter in shown:
                low, expected, high = item.low_bytes, item.bytes, item.high_bytes
                for phase in item.phases:
                    entry = sums[phase]
                    entry[0] = entry[0] + low
                    entry[1] = entry[1] + expected
                    entry[2] = entry[2] + high
        return {p: Total(low_bytes=e[0], expected_bytes=e[1], high_bytes=e[2]) for p, e in sums.items()}

    def total(self, phase: Phase, counter: Counter = Counter.PROCESS) -> Total:
        """Sum the items alive in a phase, as seen by one of the three counters."""
        return self.totals(counter)[phase]

    def peak(self, counter: Counter = Counter.PROCESS) -> Total:
        """Maximum over the phases, each bound for itself."""
        totals = self.totals(counter).values()
        return Total(
            low_bytes=reduce(larger, (t.low_bytes for t in totals)),
            expected_bytes=reduce(larger, (t.expected_bytes for t in totals)),
            high_bytes=reduce(larger, (t.high_bytes for t in totals)),
        )

    @property
    def peak_phase(self) -> Phase:
        """The phase with the largest expected bytes; of equals the earliest. One question only, no arrays."""
        totals = self.totals()
        return max(totals, key=lambda phase: totals[phase].expected_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A field that the request left open: what was taken, and why."""

    field: str
    value: object
    why: str


def in_words(value: object) -> str:
    """Return the value of a choice for people and for JSON: several names with commas, parts by name, none as none.

    >>> in_words(("q_proj", "v_proj")), in_words(None), in_words(True)
    ('q_proj, v_proj', 'none', 'True')
    """
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
        return ", ".join(f"{name} {each}" for name, each in parts.items() if each) or "none"
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """The model as understood."""

    name: str
    family: str
    parameters: int
    active_parameters: int
    layers: Mapping[str, int]
    """How many layers of each kind."""
    evidence: str


class Verdict(StrEnum):
    """Whether the job fits on the device."""

    FITS = "fits"  # even the high figure and the headroom do
    TIGHT = "tight"  # the expected figure does, the high one does not
    DOES_NOT_FIT = "does not fit"
    UNKNOWN = "unknown"  # no device was named


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The verdict on one device for the worst rank."""

    verdict: Verdict
    device: str
    capacity_bytes: int
    headroom_bytes: int
    margin_bytes: int
    """Capacity less headroom less expected peak of the worst rank; negative = missing. [B]"""
    high_margin_bytes: int
    """The same by the high figure; a job fits when this is not negative. [B]"""
    worst_rank: str
    largest_item: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The whole answer to one request, one breakdown per distinct rank."""

    model: ModelSummary
    weights_bytes: int
    """Stored weights of one copy of the model, all devices together. [B]"""
    kv_bytes_per_token: int
    """Cache growth per token of one sequence, all devices together, before any window is full. [B/token]"""
    choices: tuple[Choice, ...]
    """The request as understood: every field that was left open."""
    breakdowns: tuple[Breakdown, ...]
    not_counted: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def worst(self) -> Breakdown:
        """The rank with the largest expected peak. One question only, no arrays."""
        return max(self.breakdowns, key=lambda b: b.peak().expected_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The largest value of one knob that fits, all else as asked."""

    value: int
    """0 = not even one fits."""
    bounded_by: str
    """``"memory"``, or what stops it sooner, such as ``"max_position_embeddings"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOption:
    """The fewest devices of one kind that hold the job."""

    device: str
    count: int
    """0 = no plan within the search holds it."""
    plan: Plan
    verdict: Verdict
    margin_bytes: int
    """On the worst rank, after headroom. [B]"""
    price: Price | None = None
    """What ``count`` of them rent for on demand; None = no dated price is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of the request and what it brings on the worst rank."""

    flags: str
    """As on the command line: ``--kv-format fp8``."""
    saves_bytes: int
    verdict: Verdict
    margin_bytes: int
    note: str
    """What it costs in quality or speed, or when it is possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Everything one request is answered with."""

    request: Request
    """As understood: open fields of workload and plan filled in; ``estimate.choices`` says how."""
    estimate: Estimate
    fit: Fit
    longest_context: Limit | None
    """None = no device was named."""
    largest_batch: Limit | None
    """None = no device was named."""
    device_options: tuple[DeviceOption, ...]
    """The named kind first, then others, smallest sufficient first."""
    changes: tuple[Change, ...]
    """Smallest change first; empty when the job fits."""
