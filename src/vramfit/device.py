"""What a device is: driver-reported memory and the facts that decide what runs beside the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One kind of card, as its driver reports it."""

    name: str
    product: str
    """The name that the driver prints."""
    vendor: str
    total_bytes: int
    """Memory a process on this card sees as total; never the marketing size. [B]"""
    marketing_gb: int | None
    """The size on the box; None = it has none (a card described by hand)."""
    usable_bytes: int | None = None
    """Share of unified memory that the GPU may use; None = all of ``total_bytes``. [B]"""
    bandwidth_bytes_per_second: int | None = None
    """Memory bandwidth; None = not known."""
    compute_capability: str | None = None
    """NVIDIA only, such as ``"9.0"``."""
    architecture: str | None = None
    multiprocessors: int | None = None
    """Streaming multiprocessors or compute units; None = not known."""
    threads_per_multiprocessor: int | None = None
    unified: bool = False
    """True when CPU and GPU share the memory."""
    aliases: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    """Fields that rest on fewer than two sources."""
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    date: str = ""

    @property
    def capacity_bytes(self) -> int:
        """What a process can hope for: the GPU's share of unified memory, else the driver's total. [B]"""
        return self.usable_bytes or self.total_bytes
