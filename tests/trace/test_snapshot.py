"""Snapshots are written as PyTorch writes them, read back as values, and agree with their own history."""

from __future__ import annotations

import pickle
import pickletools
import random
from typing import Any

import pytest

from recordings import busy_recording
from vramfit.errors import VramfitError
from vramfit.trace.allocator_config import parse_config
from vramfit.trace.allocator_device import DeviceMemory
from vramfit.trace.allocator_events import EventTiming
from vramfit.trace.recording import Recording
from vramfit.trace.replay import OutOfMemoryInReplayError, Replay
from vramfit.trace.snapshot import Action, BlockState
from vramfit.trace.snapshot_facts import facts_of
from vramfit.trace.snapshot_reader import load_snapshot, read_snapshot
from vramfit.trace.snapshot_recording import recording_of
from vramfit.trace.snapshot_rewind import first_segments
from vramfit.trace.snapshot_writer import snapshot_bytes, snapshot_data, write_snapshot
from vramfit.units import MIB

VIEWER_READS = {
    "PROTO", "APPEND", "APPENDS", "LIST", "TUPLE", "NEWFALSE", "NEWTRUE", "NONE", "BINGET", "BININT", "BININT1",
    "BININT2", "EMPTY_DICT", "EMPTY_LIST", "FRAME", "LONG1", "LONG_BINGET", "MARK", "MEMOIZE", "BINPUT", "LONG_BINPUT",
    "SETITEMS", "SETITEM", "DICT", "SHORT_BINUNICODE", "BINUNICODE", "STOP", "EMPTY_TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "BINFLOAT",
}  # fmt: skip
"""Instructions that the viewer's own unpickler knows (pytorch/pytorch:torch/utils/viz/MemoryViz.js, unpickle)."""


def played(text: str = "", timing: EventTiming = EventTiming.AT_SYNCHRONIZE) -> Replay:
    """Replay it with a trace."""
    return Replay(busy_recording(), parse_config(text), timing=timing, keep_trace=True).catch_up()


@pytest.mark.parametrize("text", ["", "expandable_segments:True"])
def test_written_snapshot_reads_back(text: str) -> None:
    """Segments add up to what the counters say; events, frames, streams and settings are there."""
    replay = played(text)
    snapshot = read_snapshot(snapshot_bytes([replay]))
    counters = replay.allocator.counters.all
    assert counters.reserved_bytes.current == sum(s.size for s in snapshot.segments)
    active = [b for s in snapshot.segments for b in s.blocks if b.active]
    assert counters.active_bytes.current == sum(b.size for b in active)
    assert counters.requested_bytes.current == sum(b.requested for b in active)
    assert {(0, ())} == {(b.requested, b.frames) for s in snapshot.segments for b in s.blocks if not b.active}
    assert len(replay.trace) == len(snapshot.history_of(0))
    assert text == snapshot.alloc_conf
    made = next(e for e in snapshot.history_of(0) if e.category == "activation")
    assert [("layers.1", 0, "aten.mm"), ("train.py", 12, "forward"), ("train.py", 30, "<module>")] == list(made.frames)


@pytest.mark.parametrize("text", ["", "expandable_segments:True"])
@pytest.mark.parametrize("timing", list(EventTiming))
def test_history_leads_to_the_segments(text: str, timing: EventTiming) -> None:
    """Taken back event by event, as the viewer does, the last segments become the empty start."""
    snapshot = read_snapshot(snapshot_bytes([played(text, timing)]))
    assert () == first_segments(snapshot, 0, parse_config(text))


def test_the_viewer_can_read_it() -> None:
    """Protocol 4, plain instructions, addresses below 2**53, ``unknown`` among the categories, frames everywhere."""
    data = snapshot_bytes([played()])
    used = {op.name for op, _, _ in pickletools.genops(data)}
    assert set() == used - VIEWER_READS
    assert b"\x80\x04" == data[:2]
    events: list[dict[str, Any]] = snapshot_data([played()])["device_traces"][0]
    assert "unknown" in {event["category"] for event in events}
    assert all("frames" in event and event["addr"] < 2**53 for event in events)


def test_pending_block_is_written_as_pending() -> None:
    """A block that waits for another stream is neither allocated nor inactive."""
    recording = Recording()
    number = recording.allocate(MIB)
    recording.use(number, 4)
    recording.free(number)
    replay = Replay(recording, timing=EventTiming.AT_SYNCHRONIZE, keep_trace=True).catch_up()
    (segment,) = read_snapshot(snapshot_bytes([replay])).segments
    assert [BlockState.PENDING_FREE, BlockState.INACTIVE] == [b.state for b in segment.blocks]


def test_out_of_memory_is_in_the_history() -> None:
    """The refused request stands there with the device's free bytes."""
    recording = Recording()
    recording.allocate(200 * MIB)
    replay = Replay(recording, device=DeviceMemory(100 * MIB), keep_trace=True)
    with pytest.raises(OutOfMemoryInReplayError):
        replay.catch_up()
    (event,) = read_snapshot(snapshot_bytes([replay])).history_of(0)
    assert (Action.OOM, 200 * MIB, 100 * MIB) == (event.action, event.size, event.address)


def test_several_devices(tmp_path: Any) -> None:
    """Each replay is one device."""
    write_snapshot(tmp_path / "s.pickle", [played(), played()])
    snapshot = load_snapshot(tmp_path / "s.pickle")
    assert (0, 1) == snapshot.devices
    assert snapshot.history_of(0) == snapshot.history_of(1)


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Name the command."""
        return (print, ("executed",))


def billion_lists() -> bytes:
    """Make a small pickle that names one list of blocks many times over."""
    block = {"size": 512, "state": "inactive"}
    segment = {"address": 0, "total_size": 512 * 5000, "blocks": [block] * 5000}
    return pickle.dumps({"segments": [segment] * 10_000}, protocol=4)


HOSTILE = {
    "a class": (pickle.dumps(Evil(), protocol=4), "makes more than plain data"),
    "protocol 0": (pickle.dumps(Evil(), protocol=0), "plain data"),
    "a persistent object": (b"\x80\x04\x8c\x01xQ.", "BINPERSID makes more"),
    "an extension": (b"\x80\x04\x82\x01.", "EXT1 makes more"),
    "build": (b"\x80\x04}}b.", "BUILD makes more"),
    "a memo bomb": (b"\x80\x04Nr\xff\xff\xff\x7f.", "memo larger than what it remembers"),
    "a text longer than the file": (b"\x80\x04X\xff\xff\xff\x7fabc.", "ends too early"),
    "a long longer than the file": (b"\x80\x04\x8a\xffab.", "ends too early"),
    "an empty stack": (b"\x80\x04a.", "damaged pickle"),
    "no stop": (b"\x80\x04N", "ends too early"),
    "nothing": (b"", "ends too early"),
    "text": (b"{'segments': []}", "no pickle of plain data"),
    "a list of lists": (pickle.dumps([[1]], protocol=4), "expected a dictionary"),
    "no segments": (pickle.dumps({}, protocol=4), "segments: None: expected it to be there"),
    "segments of another kind": (pickle.dumps({"segments": 5}, protocol=4), "expected a list"),
    "lists named again and again": (billion_lists(), "the same object as one before"),
    "a negative size": (
        pickle.dumps({"segments": [{"address": -1, "total_size": 1, "blocks": []}]}, protocol=4),
        r"segments\[0\]\.address: -1",
    ),
    "blocks that do not add up": (
        pickle.dumps({"segments": [{"address": 0, "total_size": 512, "blocks": []}]}, protocol=4),
        "add up to total_size 512",
    ),
    "an unknown state": (
        pickle.dumps({"segments": [{"address": 0, "total_size": 1, "blocks": [{"size": 1, "state": []}]}]}, protocol=4),
        r"blocks\[0\]\.state",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One error says what was seen; nothing is executed."""
    data, said = HOSTILE[name]
    with pytest.raises(VramfitError, match=said):
        read_snapshot(data)
    assert "" == capsys.readouterr().out


def test_a_list_that_holds_itself_is_refused() -> None:
    """A circle of lists is no snapshot."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(VramfitError, match="expected a dictionary"):
        read_snapshot(pickle.dumps({"segments": circle}, protocol=4))


def test_file_that_is_not_there(tmp_path: Any) -> None:
    """A missing file is named."""
    with pytest.raises(VramfitError, match=r"none\.pickle: No such file"):
        load_snapshot(tmp_path / "none.pickle")


def test_older_forms_are_read() -> None:
    """A bare list of segments, blocks without addresses or frames, and the documented word for pending."""
    block = {"size": 2 * MIB, "state": "active_awaiting_free"}
    segment = {
        "device": 0,
        "address": 512,
        "total_size": 2 * MIB,
        "stream": 0,
        "segment_type": "small",
        "blocks": [block],
    }
    (read,) = read_snapshot(pickle.dumps([segment], protocol=2)).segments
    assert (True, 512, BlockState.PENDING_FREE) == (read.small, read.blocks[0].address, read.blocks[0].state)


def test_history_of_another_program_is_refused() -> None:
    """A history that does not lead to the segments is named by its event."""
    data = snapshot_data([played()])
    data["segments"] = data["segments"][1:]
    with pytest.raises(VramfitError, match=r"device_traces\[0\]\[\d+\]"):
        first_segments(read_snapshot(pickle.dumps(data, protocol=4)), 0, parse_config(""))


def mutated(data: bytes, seed: int) -> bytes:
    """Return a pickle with bytes changed, cut out, doubled or cut off."""
    draw, found = random.Random(seed), bytearray(data)  # noqa: S311 - nothing here is secret
    for _ in range(draw.choice((1, 1, 2, 5))):
        place = draw.randrange(len(found)) if found else 0
        match draw.randrange(4):
            case 0 if found:
                found[place] = draw.randrange(256)
            case 1:
                del found[place : place + draw.randrange(1, 30)]
            case 2:
                start = draw.randrange(len(found) + 1)
                found[place:place] = found[start : start + draw.randrange(60)]
            case _:
                del found[place:]
    return bytes(found)


def test_damaged_snapshot_is_refused_or_read() -> None:
    """Whatever is done to its bytes, a snapshot is read whole or refused by an error of ours."""
    data, outcomes = snapshot_bytes([played()]), {True: 0, False: 0}
    for seed in range(600):
        try:
            snapshot = read_snapshot(mutated(data, seed))
            for device in snapshot.devices[:1]:
                facts_of(snapshot, device, parse_config(""))
                Replay(recording_of(snapshot, device, parse_config(""))).catch_up()
            outcomes[True] += 1
        except VramfitError:
            outcomes[False] += 1
    assert all(outcomes.values())


@pytest.mark.parametrize("change", ["freed twice", "freed before it was asked for", "outside of any segment"])
def test_history_that_cannot_be_is_refused(change: str) -> None:
    """A history in which a block dies twice, dies first or lies nowhere is named as such."""
    data = snapshot_data([played()])
    history = data["device_traces"][0]
    frees = [i for i, event in enumerate(history) if event["action"] == "free_completed"]
    if change == "freed twice":
        history.append(dict(history[frees[-1]]))
    elif change == "freed before it was asked for":
        history.append({**history[frees[-1]], "action": "free_requested"})
    else:
        history += [{**history[i], "addr": 512} for i in (frees[-1] - 1, frees[-1])]
    with pytest.raises(VramfitError, match="a history that leads to the segments"):
        first_segments(read_snapshot(pickle.dumps(data, protocol=4)), 0, parse_config(""))
