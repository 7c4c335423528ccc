"""What a device is: driver-reported memory, the facts that decide what runs beside the model, and what it rents for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

OLDEST_OFFERED = 7.0
"""Compute capability below which serving engines do not run.
Source: vLLM's installation guide, requirements on NVIDIA CUDA: compute capability 7.0 or higher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a device rents for on demand: one provider's list price on one day, never without that day."""

    usd_per_hour: float
    provider: str
    date: str
    """Day the price was read, such as ``"2026-09-20"``."""
    terms: str = "one device"
    """What is rented: one device, or a share of an instance that comes with several."""
    source: str = ""

    def times(self, count: int) -> Price:
        """Return the price of ``count`` devices.

        >>> Price(usd_per_hour=0.526, provider="AWS", date="2026-01-21").times(2).usd_per_hour
        1.052
        """
        return replace(self, usd_per_hour=round(self.usd_per_hour * count, 4))


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
    form: str = "card"
    """``"card"``, ``"laptop"``, ``"slice"`` (of a card, by MIG), ``"module"`` (on a board), ``"host"`` (a whole
    machine, such as a Mac) or ``"accelerator"`` (no GPU: TPU, Gaudi, Ascend, Inferentia)."""
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
    """Other names; one that several devices share names none of them."""
    price: Price | None = None
    """None = no dated price is known."""
    unverified: tuple[str, ...] = ()
    """Sizes, counts and speeds that rest on fewer than two sources; what the vendor defines needs only the vendor."""
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    date: str = ""

    @property
    def capacity_bytes(self) -> int:
        """What a process can hope for: the GPU's share of unified memory, else the driver's total. [B]"""
        return self.usable_bytes or self.total_bytes

    @property
    def offered(self) -> bool:
        """True for a card that is offered unasked: engines run on it, and its memory or its price is well known."""
        if self.form != "card" or float(self.compute_capability or OLDEST_OFFERED) < OLDEST_OFFERED:
            return False
        return "total_bytes" not in self.unverified or self.price is not None
