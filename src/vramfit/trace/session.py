"""One trace from start to end: the virtual GPU, what runs on it, and what is made of it afterwards."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from vramfit.device import Device
from vramfit.errors import VramfitError
from vramfit.trace.allocator_config import AllocatorConfig
from vramfit.trace.allocator_device import DeviceMemory
from vramfit.trace.ending import CRASHED, INTERRUPTED, Ending, Stop
from vramfit.trace.limits import Limits, Stopped, limited
from vramfit.trace.recording import Recording
from vramfit.trace.replay import OutOfMemoryInReplayError, Replay
from vramfit.trace.script import Script, own_traceback, run_script
from vramfit.trace.virtual_gpu import VirtualGPU
from vramfit.trace.workloads import run_workload
from vramfit.trace_report import TraceError, TraceReport
from vramfit.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The card to be imagined, and how PyTorch is set."""

    device: Device
    alloc_conf: str | None = None
    """None = as the environment says."""
    torch_version: str | None = None
    """None = the one installed."""
    hints: Mapping[str, float | int | bool] = field(default_factory=dict)
    enforce: bool = False
    """Whether what does not fit is refused as on the real card; otherwise the program goes on and the need is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What came out."""

    report: TraceReport
    ending: Ending
    recording: Recording
    config: AllocatorConfig


def trace(
    card: Card, run: Callable[[VirtualGPU], Ending], num_largest: int, on_operator: Callable[[int], None]
) -> Traced:
    """Run something on an imagined card and report, whatever became of it.

    Raises:
        VramfitError: the card or a setting is not known, or what is to run cannot be.
    """
    gpu = VirtualGPU(
        card.device, card.torch_version, card.alloc_conf, card.hints, on_operator=on_operator,
        capacity_bytes=card.device.capacity_bytes, enforce=card.enforce,
    )  # fmt: skip
    with gpu:
        ending = run(gpu)
        gc.collect()
    report = gpu.report(num_largest)
    config = gpu.parts.card.replay.allocator.config
    if not card.enforce and report.process_peak_bytes > report.capacity_bytes:
        report = on_the_card(report, gpu.recording, config)
    return Traced(
        report=replace(report, interrupted=not ending.complete), ending=ending, recording=gpu.recording, config=config
    )


def on_the_card(report: TraceReport, recording: Recording, config: AllocatorConfig) -> TraceReport:
    """Return what the same allocations come to on a card of that size, which frees its cache before it refuses."""
    device = DeviceMemory(report.capacity_bytes, outside_bytes=report.context_bytes)
    replay = Replay(recording, config, device)
    try:
        reserved = replay.catch_up().peaks.reserved_bytes
    except OutOfMemoryInReplayError as error:
        need = f"{report.process_peak_bytes / 2**30:.2f} GiB of {report.capacity_bytes / 2**30:.2f}"
        return replace(report, out_of_memory=f"needs {need}; the first refusal:\n{error}")
    return replace(report, reserved_peak_bytes=reserved, reserved_peak_high_bytes=reserved)


def trace_workload(workload: Workload, device: Device, torch_version: str | None) -> TraceReport:
    """Return the report of one of our own workloads.

    Raises:
        VramfitError: the card is not known, or the program ended before its end.
    """
    card = Card(device=device, alloc_conf=workload.alloc_conf, torch_version=torch_version)
    traced = trace(card, run_own(partial(run_workload, workload), Limits()), 0, lambda _: None)
    if not traced.ending.complete:
        last = traced.ending.traceback.rpartition("\n")[2]
        raise TraceError(f"{workload.builder}: ended early ({traced.ending.stop.value}; {last}): expected it to end")
    return traced.report


def run_program(script: Script, limits: Limits, *, without_weights: bool) -> Callable[[VirtualGPU], Ending]:
    """Return what runs somebody's script."""
    return lambda _: run_script(script, limits, without_weights=without_weights)


def run_own(work: Callable[[], None], limits: Limits) -> Callable[[VirtualGPU], Ending]:
    """Return what runs one of our own workloads, or a module of the user's, and says how it ended."""

    def run(_: VirtualGPU) -> Ending:
        began, stop, code, text = time.monotonic(), Stop.END, 0, ""
        with limited(limits) as counted:
            try:
                work()
            except Stopped as stopped:
                stop = stopped.stop
            except KeyboardInterrupt:
                stop, code = Stop.INTERRUPT, INTERRUPTED
            except torch.OutOfMemoryError as error:
                stop, code, text = Stop.MEMORY, CRASHED, own_traceback(error)
            except VramfitError:
                raise
            except Exception as error:  # noqa: BLE001 - the module's own affair, told as a script's is
                stop, code, text = Stop.CRASH, CRASHED, own_traceback(error)
        return Ending(
            stop=stop, exit_code=code, num_steps=counted.num_steps, seconds=time.monotonic() - began, traceback=text
        )

    return run
