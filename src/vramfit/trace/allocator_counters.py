"""The counters that ``torch.cuda.memory_stats`` shows, kept as the allocator keeps them."""

# ruff: noqa: PLR1730 - max() takes three times as long as a comparison, and this runs at every allocation

from __future__ import annotations

from dataclasses import dataclass, field

POOL_NAMES = ("all", "small_pool", "large_pool")


class Counter:
    """One statistic: now, at its highest, and all that was ever taken away."""

    __slots__ = ("current", "freed", "peak")

    def __init__(self) -> None:
        """Begin at nothing."""
        self.current = self.peak = self.freed = 0

    @property
    def added(self) -> int:
        """All that was ever added."""
        return self.current + self.freed

    def add(self, amount: int) -> None:
        """Grow; the peak follows."""
        self.current += amount
        if self.current > self.peak:
            self.peak = self.current

    def take(self, amount: int) -> None:
        """Shrink; the peak stays."""
        self.current -= amount
        self.freed += amount

    def change(self, amount: int) -> None:
        """Grow or shrink."""
        if amount > 0:
            self.add(amount)
        elif amount:
            self.take(-amount)


@dataclass(slots=True)
class PoolCounters:
    """The statistics of all pools, of the small ones or of the large ones."""

    allocation: Counter = field(default_factory=Counter)
    segment: Counter = field(default_factory=Counter)
    active: Counter = field(default_factory=Counter)
    inactive_split: Counter = field(default_factory=Counter)
    allocated_bytes: Counter = field(default_factory=Counter)
    reserved_bytes: Counter = field(default_factory=Counter)
    active_bytes: Counter = field(default_factory=Counter)
    inactive_split_bytes: Counter = field(default_factory=Counter)
    requested_bytes: Counter = field(default_factory=Counter)

    def hand_out(self, size: int, requested: int) -> None:
        """Count a block that is handed out: once per allocation, so written out."""
        self.allocation.add(1)
        self.active.add(1)
        counter = self.allocated_bytes
        counter.current = now = counter.current + size
        if now > counter.peak:
            counter.peak = now
        counter = self.active_bytes
        counter.current = now = counter.current + size
        if now > counter.peak:
            counter.peak = now
        counter = self.requested_bytes
        counter.current = now = counter.current + requested
        if now > counter.peak:
            counter.peak = now

    def cache(self, size: int, requested: int) -> None:
        """Count a block that nobody works with any more: once per block that is freed, so written out."""
        counter = self.active
        counter.current -= 1
        counter.freed += 1
        counter = self.active_bytes
        counter.current -= size
        counter.freed += size
        counter = self.requested_bytes
        counter.current -= requested
        counter.freed += requested

    def reset_peak(self) -> None:
        """Begin every peak anew from what is there now."""
        for name in self.__slots__:
            counter: Counter = getattr(self, name)
            counter.peak = counter.current


@dataclass(slots=True)
class Counters:
    """All statistics of one device."""

    all: PoolCounters = field(default_factory=PoolCounters)
    small_pool: PoolCounters = field(default_factory=PoolCounters)
    large_pool: PoolCounters = field(default_factory=PoolCounters)
    oversize_allocations: Counter = field(default_factory=Counter)
    oversize_segments: Counter = field(default_factory=Counter)
    num_alloc_retries: int = 0
    num_ooms: int = 0
    num_sync_all_streams: int = 0
    num_device_alloc: int = 0
    num_device_free: int = 0

    def reset_peak(self) -> None:
        """Do what ``torch.cuda.reset_peak_memory_stats`` does."""
        for name in POOL_NAMES:
            getattr(self, name).reset_peak()
        for counter in (self.oversize_allocations, self.oversize_segments):
            counter.peak = counter.current

    def as_memory_stats(self, max_split_bytes: int) -> dict[str, int]:
        """Return the mapping of ``torch.cuda.memory_stats``, flat and sorted by key."""
        found: dict[str, int] = {}
        for pool in POOL_NAMES:
            counters = getattr(self, pool)
            for statistic in PoolCounters.__slots__:
                found |= _flat(f"{statistic}.{pool}", getattr(counters, statistic))
        for statistic in ("oversize_allocations", "oversize_segments"):
            found |= _flat(statistic, getattr(self, statistic))
        for name in ("num_alloc_retries", "num_ooms", "num_sync_all_streams", "num_device_alloc", "num_device_free"):
            found[name] = getattr(self, name)
        found["max_split_size"] = max_split_bytes if max_split_bytes < 2**63 else -1
        return dict(sorted(found.items()))


def _flat(name: str, counter: Counter) -> dict[str, int]:
    values = {"current": counter.current, "peak": counter.peak, "allocated": counter.added, "freed": counter.freed}
    return {f"{name}.{key}": value for key, value in values.items()}
