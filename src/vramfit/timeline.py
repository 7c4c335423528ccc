"""One training step as a row of moments: what is alive at each, and where the peak is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from vramfit.result import Phase

PART_TITLES = {
    "weights": "weights",
    "master": "master weights",
    "optimizer": "optimizer states",
    "gradients": "gradients",
    "activations": "activations kept for backward",
    "working": "temporaries of the block that runs",
    "autocast": "casts that autocast keeps",
    "buffers": "buffers for other ranks",
    "rounding": "rounding up",
    "models": "models beside the trained one",
    "rollout": "engine that generates",
}
"""First words of item names in a training step -> what they are for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is allocated at one point of a step."""

    phase: Phase
    label: str
    """Which point: ``"backward of layer 12 of 32"``."""
    parts: tuple[tuple[str, int], ...]
    """First words of item names and their bytes: ``weights``, ``gradients``, ``optimizer``, ``activations`` ..."""

    @property
    def total_bytes(self) -> int:
        """All parts together. [B]"""
        return sum(size for _, size in self.parts)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The moments of one step on one rank, in order of time."""

    rank: str
    moments: tuple[Moment, ...]

    @cached_property
    def peak(self) -> Moment:
        """The moment with the most bytes; of equals the earliest."""
        return max(self.moments, key=lambda moment: moment.total_bytes)

    def worst(self, phase: Phase) -> Moment | None:
        """Return the moment of a phase with the most bytes; None = the phase does not occur."""
        of_phase = [moment for moment in self.moments if moment.phase is phase]
        return max(of_phase, key=lambda moment: moment.total_bytes) if of_phase else None
