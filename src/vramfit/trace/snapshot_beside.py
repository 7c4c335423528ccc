"""A real snapshot beside a predicted one: which allocations, by size, are in the one and not in the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from vramfit.trace.recording import Frame
from vramfit.trace.snapshot_facts import Held


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeDifference:
    """One size of allocation, as often as it was alive at the peak of each."""

    requested: int
    """Bytes of one. [B]"""
    num_real: int
    num_predicted: int
    category: str
    """What the prediction calls most of them; empty = it has none of that size."""
    frames: tuple[Frame, ...]
    """A line that made one, of the real program if it says."""

    @property
    def difference_bytes(self) -> int:
        """Predicted less real. [B]"""
        return self.requested * (self.num_predicted - self.num_real)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Two snapshots at their peaks; sizes as requested, before any rounding. [B]"""

    real_bytes: int
    predicted_bytes: int
    equal_bytes: int
    """In both, size for size."""
    differences: tuple[SizeDifference, ...]
    """Sizes that are not equally many, the one that weighs most first."""


def beside(real: Iterable[Held], predicted: Iterable[Held]) -> Beside:
    """Set what was alive at the peak of two snapshots side by side."""
    here, there = tuple(real), tuple(predicted)
    real_counts = Counter(held.requested for held in here)
    predicted_counts = Counter(held.requested for held in there)
    sizes = real_counts.keys() | predicted_counts.keys()
    found = [
        SizeDifference(
            requested=size,
            num_real=real_counts[size],
            num_predicted=predicted_counts[size],
            category=_category(there, size),
            frames=_frames((*here, *there), size),
        )
        for size in sizes
        if real_counts[size] != predicted_counts[size]
    ]
    return Beside(
        real_bytes=sum(held.requested for held in here),
        predicted_bytes=sum(held.requested for held in there),
        equal_bytes=sum(size * min(real_counts[size], predicted_counts[size]) for size in sizes),
        differences=tuple(sorted(found, key=lambda d: (-abs(d.difference_bytes), d.requested))),
    )


def _category(held: Iterable[Held], size: int) -> str:
    counts = Counter(one.category for one in held if one.requested == size)
    return counts.most_common(1)[0][0] if counts else ""


def _frames(held: Iterable[Held], size: int) -> tuple[Frame, ...]:
    return next((one.frames for one in held if one.requested == size and one.frames), ())
