"""What a question about training is answered with."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.request import Plan
from vramfit.result import Breakdown, Change, Choice, DeviceOption, Fit, Item, Limit, ModelSummary, Phase
from vramfit.timeline import Timeline
from vramfit.training import Training, TrainingRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEstimate:
    """What each distinct rank holds over one step, and why."""

    model: ModelSummary
    trained_parameters: int
    """Parameters that the optimizer moves, all devices together, each counted once."""
    training: Training
    """As understood: every open field decided."""
    plan: Plan
    """As understood."""
    choices: tuple[Choice, ...]
    """Every field that was left open: what was taken, and why."""
    breakdowns: tuple[Breakdown, ...]
    """One for each distinct rank; a name may stand twice with other bytes in another phase."""
    timelines: tuple[Timeline, ...]
    """One for each distinct rank, in the same order; what torch would count as allocated."""
    hosts: tuple[tuple[Item, ...], ...]
    """What each distinct rank holds outside its device, in that order: ``host/`` in memory, ``disk/`` a drive."""
    why: str
    """Why the peak is where it is, in one sentence."""
    not_counted: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def worst(self) -> Breakdown:
        """The rank with the largest expected peak."""
        return max(self.breakdowns, key=lambda b: b.peak().expected_bytes)

    @property
    def worst_timeline(self) -> Timeline:
        """The timeline of that rank."""
        return self.timelines[self.breakdowns.index(self.worst)]

    @property
    def host_bytes(self) -> int:
        """Host memory of the rank that holds most there. [B]"""
        on_host = (sum(i.bytes for i in items if not i.name.startswith("disk/")) for items in self.hosts)
        return max(on_host, default=0)

    @property
    def peak_phase(self) -> Phase:
        """The phase in which the worst rank is fullest."""
        return self.worst.peak_phase


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingAnswer:
    """Everything one request about training is answered with."""

    request: TrainingRequest
    """As understood: open fields of workload and plan filled in; ``estimate.choices`` says how."""
    estimate: TrainingEstimate
    fit: Fit
    largest_micro_batch: Limit | None = None
    """None = no device was named."""
    longest_sequence: Limit | None = None
    """None = no device was named."""
    cheapest_recompute: str | None = None
    """The recomputation that costs least of those with which it fits; None = no device was named, or none does."""
    device_options: tuple[DeviceOption, ...] = ()
    """The named kind first, then others, smallest sufficient first."""
    changes: tuple[Change, ...] = ()
    """Smallest change first; empty when the job fits."""
