"""What a trace found: peaks, whose memory it was at the peak, phase by phase and step by step. No torch is needed."""

from __future__ import annotations

from dataclasses import dataclass

from vramfit.errors import VramfitError


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanPeak:
    """The most that was in use during a phase or a step. [B]"""

    name: str
    """Of a phase such as ``backward``, or a step's number."""
    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one category, module or operator held at the peak."""

    name: str
    num_bytes: int
    """As requested, before rounding. [B]"""
    num_tensors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeTensor:
    """One of the largest allocations alive at the peak."""

    num_bytes: int
    category: str
    operator: str
    module: str
    """Path of the module that made it; empty = none did."""
    phase: str
    step: int | None
    where: tuple[str, ...]
    """Lines of the program that led to it, innermost first, such as ``train.py:31 in step``."""
    name: str = ""
    """Of the parameter, where it is one, its gradient or its state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceReport:
    """One traced program on one imagined card."""

    title: str
    device: str
    capacity_bytes: int
    """Memory that the driver reports of the card. [B]"""
    requested_peak_bytes: int
    """Most that the program's tensors and its kernels' workspaces asked for. [B]"""
    allocated_peak_bytes: int
    """``torch.cuda.max_memory_allocated``: the same in the allocator's blocks. [B]"""
    reserved_peak_bytes: int
    """``torch.cuda.max_memory_reserved``: what the allocator took from the card. [B]"""
    reserved_peak_high_bytes: int
    """The same where other streams finish only when the host waits for them; equal without a second stream. [B]"""
    context_bytes: int
    """CUDA context and kernel code, outside of the allocator. [B]"""
    phases: tuple[SpanPeak, ...] = ()
    steps: tuple[SpanPeak, ...] = ()
    categories: tuple[Share, ...] = ()
    """At the peak of allocated memory; they add up to ``peak_alive_bytes``."""
    modules: tuple[Share, ...] = ()
    operators: tuple[Share, ...] = ()
    largest: tuple[LargeTensor, ...] = ()
    peak_alive_bytes: int = 0
    """Requested bytes alive at the peak of allocated memory. [B]"""
    peak_phase: str = ""
    num_operators: int = 0
    num_allocations: int = 0
    out_of_memory: str | None = None
    """What was refused, with why; None = nothing was."""
    interrupted: bool = False
    """True when the program was stopped before its end: the numbers hold up to there."""
    assumptions: tuple[str, ...] = ()
    not_counted: tuple[str, ...] = ()

    @property
    def process_peak_bytes(self) -> int:
        """What ``nvidia-smi`` would show at the peak: context, kernels and reserved memory. [B]"""
        return self.context_bytes + self.reserved_peak_bytes

    @property
    def fits(self) -> bool:
        """True when the card holds the process."""
        return self.out_of_memory is None and self.process_peak_bytes <= self.capacity_bytes

    @property
    def warm_up_reserved_bytes(self) -> int | None:
        """Reserved at the peak of the first step; None = there was no step. [B]"""
        return self.steps[0].reserved_bytes if self.steps else None

    @property
    def steady_allocated_bytes(self) -> int | None:
        """Most allocated in any step after the first; None = there was one step or none. [B]"""
        return max((step.allocated_bytes for step in self.steps[1:]), default=None)

    def share(self, category: str) -> int:
        """Return the bytes of a category at the peak. [B]"""
        return sum(each.num_bytes for each in self.categories if each.name == category)


class TraceError(VramfitError):
    """A traced program did something that cannot be followed without the device or its data."""
