"""What a replay held over time, thinned out to a few hundred moments without losing a peak."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass

from vramfit.trace.recording import CATEGORIES, Category, Kind
from vramfit.trace.replay import Replay

NUM_LARGEST = 8
LOOKED_AT = 256
"""Allocations that are looked at for those groups, from the largest down."""
DEFAULT_MOMENTS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The moment of a stretch of time at which most was allocated."""

    event: int
    step: int | None
    phase: str
    bytes_of: tuple[int, ...]
    """Allocated bytes by category, in the order of ``CATEGORIES``. [B]"""
    reserved_bytes: int
    largest: tuple[tuple[int, int, int], ...]
    """The largest allocations alive, alike ones together: the number of the newest, the bytes of one, how many."""

    @property
    def allocated_bytes(self) -> int:
        """All categories together. [B]"""
        return sum(self.bytes_of)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Moments from ``first`` to before ``end`` that belong to one phase of one step."""

    first: int
    end: int
    step: int | None
    phase: str


def moments(replay: Replay, most: int = DEFAULT_MOMENTS) -> tuple[Moment, ...]:
    """Return at most ``most`` moments, evenly spread over the events, each the highest of its stretch."""
    chosen = list(_highest(replay, most))
    return tuple(_moments(replay, chosen))


def stretches(found: tuple[Moment, ...]) -> tuple[Stretch, ...]:
    """Return which moments belong to which phase of which step."""
    result: list[Stretch] = []
    first = 0
    for i in range(1, len(found) + 1):
        here = found[first]
        if i == len(found) or (found[i].step, found[i].phase) != (here.step, here.phase):
            result.append(Stretch(first, i, here.step, here.phase))
            first = i
    return tuple(result)


def categories_in(found: tuple[Moment, ...]) -> tuple[Category, ...]:
    """Return the categories that are ever alive."""
    return tuple(c for i, c in enumerate(CATEGORIES) if any(moment.bytes_of[i] for moment in found))


def _changes(replay: Replay) -> Iterator[tuple[int, int, int]]:
    """Yield event, number and change in bytes of every birth and death."""
    for event, (kind, number, _) in enumerate(replay.recording.events()):
        if event >= replay.position:
            return
        if kind == Kind.ALLOCATE:
            yield event, number, replay.size_of(number)
        elif kind == Kind.FREE:
            yield event, number, -replay.size_of(number)


def _highest(replay: Replay, most: int) -> Iterator[int]:
    """Yield, for each stretch of events, the one after which most was allocated."""
    num_events = max(1, replay.position)
    width = -(-num_events // most)
    now, stretch, best, best_event = 0, 0, -1, 0
    for event, _, change in _changes(replay):
        while event // width > stretch:
            yield max(best_event, stretch * width) if best < 0 else best_event
            stretch, best = stretch + 1, -1
        now += change
        if now > best:
            best, best_event = now, event
    yield best_event


def _moments(replay: Replay, chosen: list[int]) -> Iterator[Moment]:
    recording = replay.recording
    codes = {category: code for code, category in enumerate(CATEGORIES)}
    totals = [0] * len(CATEGORIES)
    alive: list[tuple[int, int]] = []  # (bytes, number), smallest first
    steps = replay.reserved_steps
    changes = _changes(replay)
    pending = next(changes, None)
    for event in chosen:
        while pending is not None and pending[0] <= event:
            _, number, change = pending
            totals[codes[recording.category(number)]] += change
            if change > 0:
                insort(alive, (change, number))
            elif change < 0:
                del alive[bisect_left(alive, (-change, number))]
            pending = next(changes, None)
        place = bisect_right(steps, event, key=_event_of)
        yield Moment(
            event=event,
            step=recording.step_at(event),
            phase=recording.phase_at(event),
            bytes_of=tuple(totals),
            reserved_bytes=steps[place - 1][1] if place else 0,
            largest=tuple(_groups(replay, alive)),
        )


def _groups(replay: Replay, alive: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield the largest allocations; those of one size, category, operator and line count as one group."""
    recording = replay.recording
    groups: dict[tuple[object, ...], list[int]] = {}
    for size, number in reversed(alive[-LOOKED_AT:]):
        alike = (size, recording.category(number), recording.operator(number), recording.frames(number)[:1])
        if alike in groups:
            groups[alike][2] += 1
        elif len(groups) < NUM_LARGEST:
            groups[alike] = [number, size, 1]
        else:
            break
    for number, size, count in groups.values():
        yield number, size, count


def _event_of(step: tuple[int, int]) -> int:
    return step[0]
