"""A log beside its prediction: part by part, what differs most, and which knob explains it or helps."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.log_facts import LogFacts
from vramfit.request import Request
from vramfit.result import COUNTED, Quantity, Total


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One printed figure and its prediction."""

    quantity: Quantity
    scope: str
    measured: float
    predicted: float
    low: float
    high: float
    inside: bool
    """Whether the printed figure lies in the band, give or take how finely it was printed."""

    @property
    def error_ratio(self) -> float:
        """Predicted over printed, less one; of a printed zero, zero."""
        return self.predicted / self.measured - 1 if self.measured else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One knob and where to turn it."""

    flag: str
    """As the engine spells it; ours where it has none."""
    seen: str
    """What it stood at."""
    wanted: str
    """What to turn it to."""

    def __str__(self) -> str:
        return f"{self.flag} {self.wanted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Knobs to turn together."""

    turns: tuple[Turn, ...]
    why: str
    """What that brings, by the forward formulas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that came out of one log."""

    facts: LogFacts
    request: Request | None
    """As read from the log, with what was added; None = no model is known, nothing was predicted."""
    parts: tuple[Part, ...]
    """In the order of the log."""
    explanations: tuple[Advice, ...]
    """Knobs of which another value would explain the part that differs most; best first."""
    ways_out: tuple[Advice, ...]
    """Changes with which it would not have failed, smallest first."""
    need: Total | None = None
    """What this request needs on the fullest device, as predicted; None = nothing was predicted."""
    not_predicted: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def worst(self) -> Part | None:
        """The part whose prediction is furthest off; of those outside their band, if any is.

        Sizes are weighed in bytes; counts decide when no size is outside its band and one of them is.
        """
        outside = [part for part in self.parts if not part.inside]
        for parts in (outside, list(self.parts)):
            sizes = [part for part in parts if part.quantity not in COUNTED]
            if sizes:
                return max(sizes, key=lambda part: abs(part.predicted - part.measured))
            if parts:
                return max(parts, key=lambda part: abs(part.error_ratio))
        return None
