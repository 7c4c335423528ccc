"""What was recorded can be read back, in its order, and stays small."""

from __future__ import annotations

import sys

import pytest

from vramfit.trace.recording import Category, Frame, Kind, Mark, Recording, RecordingClosedError

LINE = Frame("train.py", 12, "main")


def two_steps() -> Recording:
    """Record a parameter, and one activation in each of two steps."""
    recording = Recording("two steps")
    recording.allocate(400, module="head", category=Category.PARAMETER)
    for step in range(2):
        recording.mark(Mark.STEP, value=step)
        recording.mark(Mark.PHASE, "forward")
        kept = recording.allocate(1000, stream=3, operator="aten.mm", module="head", frames=(LINE,))
        recording.set_category(kept, Category.ACTIVATION)
        recording.use(kept, 7)
        recording.mark(Mark.PHASE, "backward")
        recording.free(kept)
    return recording


def test_events_keep_their_order() -> None:
    """Every event comes back in the order in which it was written, marks among them."""
    kinds = [Kind(kind) for kind, _, _ in two_steps().events()]
    step = [Kind.MARK, Kind.MARK, Kind.ALLOCATE, Kind.USE, Kind.MARK, Kind.FREE]
    assert [Kind.ALLOCATE, *step, *step] == kinds


def test_allocation_knows_its_time_and_place() -> None:
    """Phase and step are those in which it was born; the frames are the user's."""
    second = two_steps().allocation(2)
    assert (1, "forward", Category.ACTIVATION) == (second.step, second.phase, second.category)
    assert (9, 12, 3, (LINE,)) == (second.birth, second.death, second.stream, second.frames)
    first = two_steps().allocation(0)
    assert (None, "", None) == (first.step, first.phase, first.death)


def test_use_names_allocation_and_stream() -> None:
    """A use by another stream yields the allocation's number and that stream."""
    uses = [(number, stream) for kind, number, stream in two_steps().events() if kind == Kind.USE]
    assert [(1, 7), (2, 7)] == uses


def test_alive_is_what_was_born_and_not_yet_freed() -> None:
    """An allocation is alive from its birth to just before its death."""
    recording = two_steps()
    assert [0] == list(recording.alive())
    assert [[0], [0, 1], [0, 1], [0]] == [list(recording.alive(event)) for event in (2, 3, 5, 6)]


def test_what_is_taken_back_never_was() -> None:
    """Its birth, use and death yield nothing, and every position stays."""
    recording = two_steps()
    recording.take_back(1)
    before = [kind for kind, _, _ in two_steps().events()]
    after = [kind for kind, _, _ in recording.events()]
    assert [3, 4, 6] == [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert [0, 2] == [a.number for a in recording.allocations()]
    gone = recording.allocate(1)
    recording.take_back(gone)
    recording.free(gone)
    assert [Kind.NOTHING, Kind.NOTHING] == [kind for kind, _, _ in recording.events(13)]


def test_events_can_be_read_from_the_middle() -> None:
    """A reader that comes back sees only what is new."""
    recording = two_steps()
    assert list(recording.events())[8:] == list(recording.events(8))


def test_finished_is_finished() -> None:
    """A closed recording refuses to be written."""
    recording = two_steps()
    recording.finish()
    with pytest.raises(RecordingClosedError, match="only be read"):
        recording.allocate(1)


def test_freed_twice_is_a_mistake() -> None:
    """An allocation dies once."""
    recording = two_steps()
    with pytest.raises(AssertionError, match="freed before"):
        recording.free(1)


def test_stays_small() -> None:
    """A hundred thousand allocations of a few modules take less than 60 bytes each, their two events included."""
    recording = Recording()
    for i in range(100_000):
        recording.free(recording.allocate(1024, operator="aten.mm", module=f"layers.{i % 80}", frames=(LINE,)))
    columns = [getattr(recording, name) for name in Recording.__slots__ if name not in {"_closed", "title"}]
    assert 60 * 100_000 > sum(sys.getsizeof(column) for column in columns)
