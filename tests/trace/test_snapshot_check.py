"""The simulated allocator reproduces histories: those of real GPUs, and its own."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_histories import real_history
from vramfit.trace.allocator_config import parse_config
from vramfit.trace.allocator_events import EventTiming
from vramfit.trace.recording import Mark, Recording
from vramfit.trace.replay import Replay
from vramfit.trace.snapshot import Snapshot
from vramfit.trace.snapshot_check import check_history
from vramfit.trace.snapshot_reader import read_snapshot
from vramfit.trace.snapshot_writer import snapshot_bytes, snapshot_data
from vramfit.units import MIB

CONFIGS = ["", "expandable_segments:True", "roundup_power2_divisions:4", "max_split_size_mb:64"]


@pytest.mark.parametrize(("name", "events"), [("adam", 35), ("forward_passes", 5125)])
def test_real_history_is_reproduced(name: str, events: int) -> None:
    """Every block and segment of a real GPU's history lies where the simulation puts it."""
    found = check_history(real_history(name), 0, parse_config(""))
    assert (events, events, "") == (found.num_events, found.num_equal, found.difference)


def test_real_peak_is_reproduced() -> None:
    """Three matrices of 40,000,000 B, two of them for Adam, and all the rest: what the last segments add up to."""
    found = check_history(real_history("adam"), 0, parse_config(""))
    assert 5 * 41_943_040 + 2_097_152 + 20_971_520 == found.peaks.reserved_bytes


@pytest.mark.parametrize(("name", "equal"), [("adam", 0), ("forward_passes", 287)])
def test_another_configuration_parts_at_the_first_new_segment(name: str, equal: int) -> None:
    """A configuration that was not in force is found out; before, only cached segments go back."""
    found = check_history(real_history(name), 0, parse_config("expandable_segments:True"))
    assert equal == found.num_equal
    assert "the simulation made segment_map" in found.difference


def steps() -> st.SearchStrategy[list[tuple[int, int, int]]]:
    """Draw requests: bytes, stream, and which live one is freed before (or used by another stream)."""
    size = st.one_of(st.integers(1, 3 * MIB), st.integers(9 * MIB, 90 * MIB))
    return st.lists(st.tuples(size, st.integers(0, 1), st.integers(0, 99)), min_size=1, max_size=60)


def history_of(drawn: list[tuple[int, int, int]], text: str, skip: int) -> Snapshot:
    """Simulate a program; forget the first ``skip`` events of its history."""
    recording, held = Recording(), list[int]()
    for size, stream, choice in drawn:
        if held and choice % 3:
            number = held.pop(choice % len(held))
            if choice % 5 == 1:
                recording.use(number, 7)
            recording.free(number)
        if choice % 17 == 16:
            recording.mark(Mark.EMPTY_CACHE)
        held.append(recording.allocate(size, stream=stream))
    replay = Replay(recording, parse_config(text), timing=EventTiming.AT_SYNCHRONIZE, keep_trace=True).catch_up()
    snapshot = read_snapshot(snapshot_bytes([replay]))
    return replace(snapshot, histories=(snapshot.history_of(0)[skip:],))


@settings(max_examples=80, deadline=None)
@given(drawn=steps(), text=st.sampled_from(CONFIGS))
def test_simulated_history_is_reproduced(drawn: list[tuple[int, int, int]], text: str) -> None:
    """What one simulation wrote, a second one that is told only the program's doings makes again."""
    found = check_history(history_of(drawn, text, 0), 0, parse_config(text))
    assert "" == found.difference
    assert found.equal


@settings(max_examples=80, deadline=None)
@given(drawn=steps(), share=st.floats(0, 1))
def test_history_of_pages_may_begin_anywhere(drawn: list[tuple[int, int, int]], share: float) -> None:
    """Where every block is as large as its request says, the state before any event is found, holes among it."""
    text = "expandable_segments:True"
    whole = history_of(drawn, text, 0)
    part = history_of(drawn, text, int(share * len(whole.history_of(0))))
    found = check_history(part, 0, parse_config(text))
    assert "" == found.difference


def test_history_that_begins_in_the_middle() -> None:
    """A block that is larger than its request is known by what begins behind it."""
    recording = Recording()
    first = [recording.allocate(n * MIB) for n in (5, 6, 5)]
    recording.free(first[1])
    tight = recording.allocate(int(5.5 * MIB))  # takes the block of 6 MiB whole
    recording.free(first[2])
    recording.mark(Mark.PHASE, "the history begins")
    behind = recording.allocate(4 * MIB)  # begins 6 MiB behind the tight one, not 5.5
    recording.free(tight)
    recording.free(behind)
    recording.allocate(7 * MIB)
    replay = Replay(recording, keep_trace=True).catch_up()
    whole = read_snapshot(snapshot_bytes([replay]))
    start = next(i for i, e in enumerate(whole.history_of(0)) if e.size == 4 * MIB)
    part = replace(whole, histories=(whole.history_of(0)[start:],))
    found = check_history(part, 0, parse_config(""))
    assert "" == found.difference


def test_a_forged_address_is_found() -> None:
    """One block moved by 512 bytes, in the history and in the segments, is where the two part."""
    recording = Recording()
    for _ in range(3):
        recording.allocate(512)
    replay = Replay(recording, keep_trace=True).catch_up()
    data = snapshot_data([replay])
    data["device_traces"][0][-1]["addr"] += 512
    blocks = data["segments"][0]["blocks"]
    moved, rest = blocks[2], blocks[3]
    blocks[2:] = [{**rest, "size": 512}, moved, {**rest, "size": rest["size"] - 512}]
    found = check_history(read_snapshot(pickle.dumps(data, protocol=4)), 0, parse_config(""))
    assert (3, 4) == (found.num_equal, found.num_events)
