"""The device below the allocator: how much memory it has, which addresses it gives, and how it says no."""

from __future__ import annotations

from vramfit.errors import VramfitError
from vramfit.trace.allocator_counters import Counters
from vramfit.units import GIB, KIB, MIB

FIRST_ADDRESS = 0x1000_0000_0000
"""Where simulated addresses begin; real ones are the driver's business."""
PAGE_BYTES = 2 * MIB
"""Granularity of device memory and of addresses.
Source: cuMemGetAllocationGranularity on all supported cards; pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp, note
on expandable segments."""
ENDLESS = 2**62
ADVICE = "https://pytorch.org/docs/stable/notes/cuda.html#environment-variables"


class DeviceMemory:
    """Memory of one card; addresses grow and are not given twice."""

    __slots__ = ("_next", "free_bytes", "number", "outside_bytes", "total_bytes")

    def __init__(self, total_bytes: int = ENDLESS, *, outside_bytes: int = 0, number: int = 0) -> None:
        """``outside_bytes``: what is taken without the allocator (the context, other processes)."""
        self.total_bytes, self.outside_bytes, self.number = total_bytes, outside_bytes, number
        self.free_bytes = total_bytes - outside_bytes
        self._next = FIRST_ADDRESS

    @property
    def endless(self) -> bool:
        """True when no capacity was given."""
        return self.total_bytes == ENDLESS

    def take(self, size: int) -> int | None:
        """Return the address of new memory (``cudaMalloc``); None = there is not that much."""
        return self.reserve(size) if self.map(size) else None

    def give_back(self, size: int) -> None:
        """Free memory (``cudaFree``, or pages unmapped)."""
        self.free_bytes += _pages(size)

    def map(self, size: int) -> bool:
        """Take memory without an address; False = there is not that much."""
        if _pages(size) > self.free_bytes:
            return False
        self.free_bytes -= _pages(size)
        return True

    def reserve(self, size: int) -> int:
        """Return a range of addresses, without memory behind it."""
        address = self._next
        self._next += _pages(size)
        return address


def _pages(size: int) -> int:
    return -(-size // PAGE_BYTES) * PAGE_BYTES


class DeviceOutOfMemoryError(VramfitError):
    """The simulated device has no room: the words of ``torch.OutOfMemoryError``, with the numbers behind them."""

    def __init__(
        self,
        device: DeviceMemory,
        counters: Counters,
        asked_bytes: int,
        allowed_bytes: int | None,
        private_cached_bytes: int = 0,
    ) -> None:
        """Keep the numbers and put them into PyTorch's sentence."""
        self.device_number = device.number
        self.asked_bytes, self.total_bytes, self.free_bytes = asked_bytes, device.total_bytes, device.free_bytes
        self.allowed_bytes = allowed_bytes
        self.reserved_bytes = counters.all.reserved_bytes.current
        self.allocated_bytes = counters.all.allocated_bytes.current
        self.process_bytes = device.outside_bytes + self.reserved_bytes
        allocated = self.allocated_bytes + private_cached_bytes
        allowed = "" if allowed_bytes is None else f"{format_size(allowed_bytes)} allowed; "
        private = (
            f"with {format_size(private_cached_bytes)} allocated in private pools (e.g., CUDA Graphs), "
            if private_cached_bytes
            else ""
        )
        super().__init__(
            f"CUDA out of memory. Tried to allocate {format_size(asked_bytes)}. GPU {device.number} has a total "
            f"capacity of {format_size(self.total_bytes)} of which {format_size(self.free_bytes)} is free. Including "
            f"non-PyTorch memory, this process has {format_size(self.process_bytes)} memory in use. {allowed}Of the "
            f"allocated memory {format_size(allocated)} is allocated by PyTorch, {private}and "
            f"{format_size(self.reserved_bytes - allocated)} is reserved by PyTorch but unallocated. If reserved but "
            "unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid "
            f"fragmentation.  See documentation for Memory Management  ({ADVICE})"
        )


def format_size(size: int) -> str:
    """Print bytes as PyTorch's messages do.

    >>> format_size(20 * 2**20), format_size(1024)
    ('20.00 MiB', '1024 bytes')
    """
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size > unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} bytes"
