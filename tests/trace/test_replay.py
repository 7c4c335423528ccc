"""A recording is played through the allocator: peaks by step and phase, and who was alive at them."""

from __future__ import annotations

import pytest

from vramfit.trace.allocator_config import parse_config
from vramfit.trace.allocator_device import DeviceMemory, DeviceOutOfMemoryError
from vramfit.trace.recording import ALL_STREAMS, Category, Frame, Mark, Recording
from vramfit.trace.replay import OutOfMemoryInReplayError, Replay, replay_bounds
from vramfit.units import MIB

LINE = Frame("train.py", 12, "main")


def training(steps: int = 2) -> Recording:
    """Record a weight of 20 MiB, and in each step an activation of 40 MiB and a gradient of 20 MiB."""
    recording = Recording("training")
    recording.mark(Mark.PHASE, "load")
    recording.allocate(20 * MIB, module="head", category=Category.PARAMETER)
    for step in range(steps):
        recording.mark(Mark.STEP, value=step)
        recording.mark(Mark.PHASE, "forward")
        kept = recording.allocate(
            40 * MIB, operator="aten.mm", module="head", category=Category.ACTIVATION, frames=(LINE,)
        )
        recording.mark(Mark.PHASE, "backward")
        gradient = recording.allocate(20 * MIB - 100, module="head", category=Category.GRADIENT)
        recording.free(kept)
        recording.mark(Mark.PHASE, "optimizer")
        recording.free(gradient)
    recording.finish()
    return recording


def test_peaks_are_those_of_the_counters() -> None:
    """All three are alive in the backward pass; what was asked is 100 bytes less than what was handed out."""
    peaks = Replay(training()).catch_up().peaks
    expected = (80 * MIB - 100, 80 * MIB, 80 * MIB, 80 * MIB)
    assert expected == (peaks.requested_bytes, peaks.allocated_bytes, peaks.active_bytes, peaks.reserved_bytes)


def test_windows_tell_step_and_phase() -> None:
    """Each phase has its own peak; reserved memory stays from the step before."""
    windows = Replay(training()).catch_up().windows
    found = [(w.step, w.phase, w.peaks.allocated_bytes // MIB, w.peaks.reserved_bytes // MIB) for w in windows]
    assert (None, "load", 20, 20) in found
    assert [(0, "forward", 60, 60), (0, "backward", 80, 80), (0, "optimizer", 40, 80)] == found[2:5]
    assert (1, "forward", 60, 80) in found


def test_windows_cover_the_recording() -> None:
    """The stretches follow one another from the first event to the last, and the highest is the peak."""
    replay = Replay(training()).catch_up()
    windows = replay.windows
    assert [w.end for w in windows[:-1]] == [w.first for w in windows[1:]]
    assert (0, len(replay.recording)) == (windows[0].first, windows[-1].end)
    assert replay.peaks.allocated_bytes == max(w.peaks.allocated_bytes for w in windows)


def test_who_was_alive_at_the_peak() -> None:
    """Categories and modules add up to what was allocated; the largest is named with its line."""
    replay = Replay(training()).catch_up()
    alive = replay.alive()
    assert ("backward", 0) == (alive.phase, alive.step)
    assert {Category.ACTIVATION: 40 * MIB, Category.PARAMETER: 20 * MIB, Category.GRADIENT: 20 * MIB} == dict(
        alive.by_category
    )
    assert replay.peaks.allocated_bytes == alive.total_bytes
    assert (40 * MIB, (LINE,)) == (alive.largest[0][1], alive.largest[0][0].frames)


def test_follows_a_recording_that_is_being_written() -> None:
    """Catching up event by event gives what one pass gives."""
    recording = Recording()
    live = Replay(recording)
    blocks = []
    for size in (5, 30 * MIB, 2 * MIB, 1):
        blocks.append(recording.allocate(size))
        live.catch_up()
    for number in blocks:
        recording.free(number)
        live.catch_up()
    once = Replay(recording).catch_up()
    assert once.peaks == live.peaks
    assert once.addresses == live.addresses


def test_out_of_memory_names_what_was_alive() -> None:
    """The error is PyTorch's sentence, then the categories, the modules and the largest tensor's line."""
    with pytest.raises(OutOfMemoryInReplayError) as caught:
        Replay(training(), device=DeviceMemory(70 * MIB)).catch_up()
    error = caught.value
    first, *more = str(error).splitlines()
    assert first.startswith("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 70.00 MiB")
    assert "Alive in backward of step 0: activation 40.00 MiB, parameter 20.00 MiB" == more[0]
    assert "By module: head 60.00 MiB" == more[1]
    assert "Largest: 40.00 MiB, activation of aten.mm made at train.py:12" == more[2]
    assert (2, 20 * MIB) == (error.number, error.asked_bytes)
    assert isinstance(error, DeviceOutOfMemoryError)


def test_a_program_may_go_on_after_out_of_memory() -> None:
    """What was refused is never alive; the next request is served."""
    recording = Recording()
    live = Replay(recording, device=DeviceMemory(50 * MIB))
    refused = recording.allocate(60 * MIB)
    with pytest.raises(OutOfMemoryInReplayError):
        live.catch_up()
    recording.take_back(refused)
    recording.allocate(40 * MIB)
    recording.free(refused)
    assert 40 * MIB == live.catch_up().peaks.reserved_bytes


def test_two_replays_bound_other_streams() -> None:
    """A block used on a second stream is reused at once in the one, after the synchronisation in the other."""
    recording = Recording()
    for _ in range(3):
        number = recording.allocate(20 * MIB)
        recording.use(number, 9)
        recording.free(number)
    recording.mark(Mark.SYNCHRONIZE, value=ALL_STREAMS)
    recording.allocate(20 * MIB)
    low, high = (replay.peaks for replay in replay_bounds(recording))
    assert (20 * MIB, 60 * MIB) == (low.reserved_bytes, high.reserved_bytes)
    low, high = (replay.peaks for replay in replay_bounds(training()))
    assert low == high


def test_marks_change_the_allocator() -> None:
    """Emptying the cache, a reset of peaks, a fraction and private pools do what their calls would."""
    recording = Recording()
    recording.free(recording.allocate(20 * MIB))
    recording.mark(Mark.EMPTY_CACHE)
    recording.mark(Mark.RESET_PEAK)
    recording.mark(Mark.CAPTURE_BEGIN, value=3)
    graph = recording.allocate(40 * MIB)
    recording.free(graph)
    recording.mark(Mark.CAPTURE_END, value=3)
    recording.free(recording.allocate(40 * MIB))
    recording.mark(Mark.POOL_RELEASE, value=3)
    recording.mark(Mark.EMPTY_CACHE)
    recording.mark(Mark.MEMORY_FRACTION, "0.5")
    replay = Replay(recording, device=DeviceMemory(100 * MIB)).catch_up()
    assert (40 * MIB, 80 * MIB) == (replay.peaks.allocated_bytes, replay.peaks.reserved_bytes)
    assert (0, 50 * MIB) == (replay.allocator.books.reserved_bytes, replay.allocator.books.allowed_bytes)


def test_another_configuration_gives_another_peak() -> None:
    """The same recording with expandable segments reserves whole pages of one range instead of segments."""
    recording = Recording()
    for _ in range(4):
        recording.allocate(11 * MIB)
    classic = Replay(recording).catch_up().peaks.reserved_bytes
    pages = Replay(recording, parse_config("expandable_segments:True")).catch_up().peaks.reserved_bytes
    assert (48 * MIB, 60 * MIB) == (classic, pages)


def test_the_largest_come_first() -> None:
    """Of many allocations the ten largest are listed, the largest first."""
    recording = Recording()
    for i in range(15):
        recording.allocate((i + 1) * MIB)
    replay = Replay(recording, parse_config("expandable_segments:True")).catch_up()
    assert [n * MIB for n in range(15, 5, -1)] == [size for _, size in replay.alive().largest]
