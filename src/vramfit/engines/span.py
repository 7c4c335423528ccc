"""A size with its bounds, as engines reckon with them before they make items and readings of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from vramfit.result import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One quantity with its bounds. [B]"""

    low: int
    expected: int
    high: int

    def __add__(self, other: Span) -> Span:
        """Add bound by bound."""
        return Span(low=self.low + other.low, expected=self.expected + other.expected, high=self.high + other.high)

    def left_of(self, whole: int | Fraction) -> Span:
        """What remains of ``whole``: least where most is taken."""
        return Span(low=int(whole) - self.high, expected=int(whole) - self.expected, high=int(whole) - self.low)

    def times(self, share: Fraction) -> Span:
        """Return that share of it, rounded down; nothing where it is negative."""
        low, expected, high = (max(0, int(x * share)) for x in (self.low, self.expected, self.high))
        return Span(low=low, expected=expected, high=high)


def exact(size: int) -> Span:
    """Return a span without width."""
    return Span(low=size, expected=size, high=size)


def span(items: Iterable[Item]) -> Span:
    """Return the sum of items."""
    total = exact(0)
    for item in items:
        total += Span(low=item.low_bytes, expected=item.bytes, high=item.high_bytes)
    return total


def share(fraction: float) -> Fraction:
    """Return a fraction as it was written, not as binary rounds it.

    >>> share(0.9)
    Fraction(9, 10)
    """
    return Fraction(str(fraction))
