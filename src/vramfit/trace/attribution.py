"""Whose memory it was: pure functions over a finished recording.

What an allocation is follows from when it lived: a tensor made in the forward pass and alive when a backward pass
begins is kept for it; one alive when a forward pass begins was there before it, an input.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter

from vramfit.trace.phase import BACKWARD, FORWARD, INFERENCE, LOSS
from vramfit.trace.recording import Allocation, Category, Frame, Mark, Recording
from vramfit.trace_report import LargeTensor, Share

MADE_FORWARD = (FORWARD, LOSS)


def categorise(recording: Recording) -> None:
    """Set the category of every allocation whose was not noted while it lived, by what its life says."""
    runs = {FORWARD: (FORWARD, INFERENCE), BACKWARD: (BACKWARD,)}
    begins = {
        name: [m.event for m in recording.marks if m.mark is Mark.PHASE and m.text in names]
        for name, names in runs.items()
    }
    for allocation in recording.allocations():
        if allocation.category is Category.TEMPORARY:
            recording.set_category(allocation.number, category_of(allocation, begins))


def category_of(allocation: Allocation, begins: Mapping[str, list[int]]) -> Category:
    """Return what an allocation is by the time it lived in; ``begins`` holds when phases began."""
    if allocation.phase not in (FORWARD, INFERENCE, LOSS, BACKWARD) and not allocation.module:
        if _alive_at(allocation, begins[FORWARD]):
            return Category.INPUT
    elif allocation.phase in MADE_FORWARD and _alive_at(allocation, begins[BACKWARD]):
        return Category.ACTIVATION
    return Category.TEMPORARY


def _alive_at(allocation: Allocation, events: list[int]) -> bool:
    """Return whether an allocation was alive at the first of the events after its birth."""
    place = bisect_right(events, allocation.birth)
    return place < len(events) and (allocation.death is None or allocation.death > events[place])


def shares(allocations: Iterable[Allocation], name: Callable[[Allocation], str]) -> tuple[Share, ...]:
    """Return what each name held, largest first."""
    totals: dict[str, list[int]] = {}
    for each in allocations:
        entry = totals.setdefault(name(each), [0, 0])
        entry[0] += each.num_bytes
        entry[1] += 1
    found = [Share(name=key, num_bytes=size, num_tensors=count) for key, (size, count) in totals.items()]
    return tuple(sorted(found, key=attrgetter("num_bytes"), reverse=True))


def module_of(allocation: Allocation, owners: Mapping[int, str]) -> str:
    """Return the module of an allocation, without its root: of a parameter and what is kept for it, whose it is."""
    named = owners.get(allocation.number)
    return (named or allocation.module.partition(".")[2] + ".").rpartition(".")[0]


def largest(allocations: Iterable[Allocation], count: int, owners: Mapping[int, str]) -> tuple[LargeTensor, ...]:
    """Return the largest allocations, with the lines that made them."""
    chosen = sorted(allocations, key=attrgetter("num_bytes"), reverse=True)[:count]
    return tuple(
        LargeTensor(
            num_bytes=each.num_bytes,
            category=str(each.category),
            operator=each.operator,
            module=each.module,
            phase=each.phase,
            step=each.step,
            where=tuple(map(line, each.frames)),
            name=owners.get(each.number, ""),
        )
        for each in chosen
    )


def line(frame: Frame) -> str:
    """Write a frame as people read it.

    >>> line(Frame("/home/me/train.py", 31, "step"))
    '/home/me/train.py:31 in step'
    """
    return f"{frame.file}:{frame.line} in {frame.function}"
