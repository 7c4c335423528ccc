"""What the counters of a GPU would show of a workload, by running it on one that is not there."""

from __future__ import annotations

from dataclasses import replace

from vramfit.catalogue.device import find_device
from vramfit.device import Device
from vramfit.errors import InvalidValueError, UnsupportedModelError, VramfitError
from vramfit.memory.runtime import KERNEL_BYTES
from vramfit.result import Quantity
from vramfit.trace_report import TraceReport
from vramfit.workload import TraceRequest

Band = tuple[float, float, float]
"""Value, low and high. [B]"""
CONTEXT_RATIO = 0.2
"""How far the context of a card may be from our fit over its multiprocessors. Assumed: the band of ``memory/runtime``;
the three contexts known to us lie within 4 % of the fit, two of them made it."""


def traced_readings(request: TraceRequest) -> dict[Quantity, Band]:
    """Return the readings of a workload on its card; needs torch, and what the workload's model needs.

    Raises:
        VramfitError: no card is named, torch is missing, or the program does not run to its end.
    """
    device = card_of(request)
    try:
        from vramfit.trace.session import trace_workload  # noqa: PLC0415 - imports torch
    except ImportError as error:
        raise UnsupportedModelError(
            f"{error.name} is not installed: expected torch to trace with: pip install 'vramfit[trace]'"
        ) from None
    return readings(trace_workload(request.workload, device, request.torch_version))


def card_of(request: TraceRequest) -> Device:
    """Return the card of a request, with the memory that it really has.

    Raises:
        VramfitError: no card is named, or one that is not known.
    """
    if request.device is None:
        raise InvalidValueError("device", None, "the name of the card that ran it: kernels and context depend on it")
    device = find_device(request.device)
    memory = request.device_memory_bytes
    return device if memory is None else replace(device, total_bytes=memory, usable_bytes=None)


def readings(report: TraceReport) -> dict[Quantity, Band]:
    """Return what torch and nvidia-smi would show.

    Raises:
        VramfitError: the program was refused memory: its peaks are those of a program that ended early.
    """
    if report.out_of_memory is not None:
        raise VramfitError(f"{report.device}: {report.out_of_memory.splitlines()[0]}")
    bare = report.context_bytes - KERNEL_BYTES
    low = int(bare * (1 - CONTEXT_RATIO)) + KERNEL_BYTES // 2
    high = int(bare * (1 + CONTEXT_RATIO)) + 2 * KERNEL_BYTES
    reserved, latest = report.reserved_peak_bytes, report.reserved_peak_high_bytes
    return {
        Quantity.REQUESTED_PEAK: _exactly(report.requested_peak_bytes),
        Quantity.ALLOCATED_PEAK: _exactly(report.allocated_peak_bytes),
        Quantity.RESERVED_PEAK: (reserved, reserved, latest),
        Quantity.PROCESS_PEAK: (report.process_peak_bytes, reserved + low, latest + high),
        Quantity.BEFORE_WEIGHTS: (bare, bare * (1 - CONTEXT_RATIO), bare * (1 + CONTEXT_RATIO)),
        Quantity.NON_TORCH: (report.context_bytes, low, high),
    }


def _exactly(size: int) -> Band:
    return size, size, size
