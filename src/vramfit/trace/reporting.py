"""From a recording to a report: peaks by phase and step, whose memory it was at the peak."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vramfit.trace.allocator_events import EventTiming
from vramfit.trace.attribution import categorise, largest, module_of, shares
from vramfit.trace.card import Card
from vramfit.trace.parts import Parts
from vramfit.trace.recording import Kind, Recording
from vramfit.trace.replay import Replay, Window
from vramfit.trace_report import SpanPeak, TraceReport

NOT_COUNTED = (
    "communication libraries (NCCL): buffers outside of the allocator",
    "FFT plans, solver handles, printf and malloc heaps of kernels: outside of the allocator",
    "fragmentation by other processes on the card",
)


def report(gpu: Parts, num_largest: int) -> TraceReport:
    """Return what a virtual GPU has seen."""
    recording, card, owners = gpu.recording, gpu.card, gpu.progress.owners
    if not gpu.recorder.closed:
        categorise(recording)
    windows = card.replay.catch_up().windows
    held = [recording.allocation(number) for number in recording.alive(card.peak_event)] if len(recording) else []
    return TraceReport(
        title=recording.title,
        device=gpu.machine.device.name,
        capacity_bytes=gpu.capacity_bytes,
        requested_peak_bytes=_most(windows, "requested_bytes"),
        allocated_peak_bytes=_most(windows, "allocated_bytes"),
        reserved_peak_bytes=_most(windows, "reserved_bytes"),
        reserved_peak_high_bytes=_latest_reserved(recording, card, windows),
        context_bytes=gpu.context_bytes,
        phases=_spans(windows, lambda window: window.phase),
        steps=_spans([w for w in windows if w.step is not None], lambda window: str(window.step)),
        categories=shares(held, lambda a: str(a.category)),
        modules=shares(held, lambda a: module_of(a, owners)),
        operators=shares(held, lambda a: a.operator),
        largest=largest(held, num_largest, owners),
        peak_alive_bytes=sum(a.num_bytes for a in held),
        peak_phase=recording.phase_at(card.peak_event),
        num_operators=gpu.recorder.num_operators,
        num_allocations=recording.num_allocations,
        out_of_memory=card.out_of_memory,
        interrupted=gpu.interrupted,
        assumptions=assumptions(gpu),
        not_counted=NOT_COUNTED,
    )


def _most(windows: Iterable[Window], counter: str) -> int:
    """Return the highest value of a counter over all windows, whatever the program reset. [B]"""
    return max((getattr(window.peaks, counter) for window in windows), default=0)


def _latest_reserved(recording: Recording, card: Card, windows: Iterable[Window]) -> int:
    """Return what is reserved where other streams finish as late as can be. [B]"""
    if not any(kind == Kind.USE for kind, _, _ in recording.events()):
        return _most(windows, "reserved_bytes")
    late = Replay(recording, card.replay.allocator.config, timing=EventTiming.AT_SYNCHRONIZE).catch_up()
    return max(_most(windows, "reserved_bytes"), _most(late.windows, "reserved_bytes"))


def _spans(windows: Iterable[Window], name: Callable[[Window], str]) -> tuple[SpanPeak, ...]:
    """Return the peaks of windows of one name together, in order of their first."""
    found: dict[str, list[Window]] = {}
    for window in windows:
        if window.phase:
            found.setdefault(name(window), []).append(window)
    return tuple(
        SpanPeak(
            name=key,
            allocated_bytes=_most(each, "allocated_bytes"),
            reserved_bytes=_most(each, "reserved_bytes"),
        )
        for key, each in found.items()
    )


def assumptions(gpu: Parts) -> tuple[str, ...]:
    """Return what was taken for granted."""
    machine = gpu.machine
    version = ".".join(map(str, machine.torch_version))
    cuda = ".".join(map(str, machine.cuda_version))
    first = f"PyTorch {version} with CUDA {cuda} and cuDNN {machine.cudnn_version} on {machine.product}, one process"
    stated = (f"{what} ({count} times)" for what, count in sorted(gpu.values.stated.items()))
    reasoned = (f"workspace of {name}: reasoned, not documented" for name in sorted(gpu.workspaces.used))
    return (first, *stated, *reasoned)
