"""What a server can carry: requests of mixed lengths, fractions, plans side by side, two models on one card."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.errors import InvalidValueError
from vramfit.request import Plan
from vramfit.result import Verdict
from vramfit.units import check_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long requests are, prompt and answer together: a median and a 95th percentile."""

    median_tokens: int
    p95_tokens: int
    shared_prefix_tokens: int = 0
    """Beginning that all requests have in common and that is cached once."""

    def __post_init__(self) -> None:
        """Check the order: prefix within the median, median below the percentile."""
        check_size(self.median_tokens, "lengths.p50")
        check_size(self.p95_tokens, "lengths.p95")
        check_size(self.shared_prefix_tokens, "shared_prefix", smallest=0)
        if self.p95_tokens < self.median_tokens:
            raise InvalidValueError("lengths.p95", self.p95_tokens, f"at least the median, {self.median_tokens}")
        if self.shared_prefix_tokens > self.median_tokens:
            raise InvalidValueError(
                "shared_prefix", self.shared_prefix_tokens, f"at most the median length, {self.median_tokens}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestsAtOnce:
    """How many requests of such lengths fit at once."""

    lengths: Lengths
    expected: int
    """Of one copy of the model, by the expected figures."""
    safe: int
    """The same by the unfavourable ends of the bands."""
    copies: int
    """Copies of the model (data parallelism): each carries as many."""
    devices: int
    bounded_by: str
    """``"memory"``, or the scheduler's limit."""
    pool_bytes: int
    """Cache of the fullest rank, or what is left for it. [B]"""
    mean_bytes: int
    """What one request takes there on average, the shared prefix left out. [B]"""
    deviation_bytes: int
    """Standard deviation of that. [B]"""
    prefix_bytes: int
    """The shared prefix, once. [B]"""
    formula: str

    @property
    def users_per_device(self) -> float:
        """Requests at once per device, all copies together."""
        return self.expected * self.copies / self.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallestFraction:
    """The least share of the card with which a server carries so many requests."""

    requests: int
    fraction: float | None
    """None = not even the whole card is enough."""
    needed_bytes: int
    """Cache that so many requests take on the fullest rank. [B]"""
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChoice:
    """One way to cut the model over the devices."""

    plan: Plan
    verdict: Verdict
    margin_bytes: int
    """On the fullest rank. [B]"""
    requests: int
    """Requests as asked that all copies together carry at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One of two models on a card."""

    model: str
    order: int
    """1 = started first."""
    fraction: float
    """As its engine defines it, at the moment it starts."""
    takes_bytes: int
    """What it holds of the card once it runs. [B]"""
    free_before_bytes: int
    """What it finds free. [B]"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models on one card."""

    fits: bool
    shares: tuple[Share, ...]
    """In the order of starting; as far as they fit."""
    left_bytes: int
    """Free with both running; negative = missing. [B]"""
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Every such answer that was asked for."""

    requests: RequestsAtOnce | None = None
    fraction: SmallestFraction | None = None
    plans: tuple[PlanChoice, ...] = ()
    """Best first."""
    pair: Pair | None = None
