"""What a counter would print of a rank that trains: torch's own three, nvidia-smi, and what is there before a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vramfit.device import Device
from vramfit.memory.model_states import Setting
from vramfit.result import Breakdown, Counter, Phase, Quantity, Reading, Total
from vramfit.training_process import AWAITING


def readings(found: Breakdown, setting: Setting, device: Device | None = None) -> Iterator[Reading]:
    """Yield the figures that a counter would print on this rank; on a device that is known, of a run that fits."""
    kinds = {
        Quantity.ALLOCATED_PEAK: (Counter.ALLOCATED, "torch.cuda.max_memory_allocated"),
        Quantity.ACTIVE_PEAK: (
            Counter.ALLOCATED,
            "torch's active bytes: allocated ones, and freed ones in other streams",
        ),
        Quantity.RESERVED_PEAK: (Counter.RESERVED, "torch.cuda.max_memory_reserved"),
        Quantity.PROCESS_PEAK: (Counter.PROCESS, "nvidia-smi"),
    }
    for quantity, (counter, what) in kinds.items():
        seen = _active(found) if quantity is Quantity.ACTIVE_PEAK else found
        peak = seen.peak(counter)
        if quantity is Quantity.RESERVED_PEAK and device is not None:
            peak = _given_back(peak, found, device)
        yield _reading(quantity, peak, "largest phase of what it counts", what)
    loaded = found.total(Phase.LOAD, Counter.ALLOCATED)
    reserved = int(loaded.high_bytes * (1 + setting.framework.fragmentation.high_ratio))
    loaded = replace(loaded, high_bytes=reserved)  # what programs print of it is often what torch has reserved by then
    yield _reading(Quantity.LOADED, loaded, f"weights as {setting.framework.name} holds them", "before the first step")


def _given_back(peak: Total, found: Breakdown, device: Device) -> Total:
    """Return what is reserved at most on a device: before it fails, the allocator gives back blocks that nobody uses.

        device memory - what the process takes outside the allocator, but no less than is allocated; high: all of it

    What does not fit stays as it is.

    Source: pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp, release_cached_blocks before the last alloc_block.
    """
    outside = [item for item in found.items if item.counter is Counter.PROCESS]
    needed, room = found.peak(Counter.ALLOCATED), device.capacity_bytes
    if needed.expected_bytes > room:
        return peak
    return Total(
        low_bytes=min(peak.low_bytes, max(needed.low_bytes, room - sum(i.high_bytes for i in outside))),
        expected_bytes=min(peak.expected_bytes, max(needed.expected_bytes, room - sum(i.bytes for i in outside))),
        high_bytes=min(peak.high_bytes, max(needed.high_bytes, room)),
    )


def _active(found: Breakdown) -> Breakdown:
    """Return a breakdown in which what other streams still hold counts as allocated."""
    items = (replace(i, counter=Counter.ALLOCATED) if i.name == AWAITING else i for i in found.items)
    return replace(found, items=tuple(items))


def _reading(quantity: Quantity, total: Total, formula: str, source: str) -> Reading:
    return Reading(
        quantity=quantity, value=total.expected_bytes, low=total.low_bytes, high=total.high_bytes,
        formula=formula, source=source,
    )  # fmt: skip
