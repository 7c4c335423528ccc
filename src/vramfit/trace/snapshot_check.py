"""Replays a real history through the simulated allocator, event by event and address by address.

Only what a program decides is taken from the history: requests, frees, when another stream had finished, when cached
memory went back. Which block serves, when a segment is made and how large it is, the simulation must find itself; where
the driver put a segment is told to it afterwards.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from vramfit.trace.allocator import CachingAllocator
from vramfit.trace.allocator_block import Block
from vramfit.trace.allocator_config import AllocatorConfig
from vramfit.trace.allocator_device import DeviceMemory
from vramfit.trace.allocator_events import EventTiming
from vramfit.trace.allocator_expandable import unmap
from vramfit.trace.allocator_release import release_segment
from vramfit.trace.replay import Peaks
from vramfit.trace.snapshot import Action, HistoryEvent, Snapshot
from vramfit.trace.snapshot_rewind import first_segments
from vramfit.trace.snapshot_seed import seed

OTHER_STREAM = -1
NEW_MEMORY = {Action.SEGMENT_ALLOC, Action.SEGMENT_MAP}
Told = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCheck:
    """How far the simulated allocator and the real one agree."""

    num_events: int
    """Events of the history that an allocator makes."""
    num_equal: int
    """Events that the simulation made with the same address, size and stream, from the first on."""
    difference: str
    """Where they part; empty = nowhere."""
    peaks: Peaks
    """The simulated counters' peaks up to there, what was there before the history began among them."""

    @property
    def equal(self) -> bool:
        """True when every event was reproduced."""
        return self.num_equal == self.num_events


class _RecordedDevice(DeviceMemory):
    """A device without end that puts memory where the real one did."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        """Begin without a place."""
        super().__init__()
        self.places: deque[int] = deque()

    def reserve(self, size: int) -> int:
        """Return the place that the history says, or one of its own where it says none."""
        return self.places[0] if self.places else super().reserve(size)


class _PartedError(Exception):
    """The two do not agree."""


def check_history(snapshot: Snapshot, device: int, config: AllocatorConfig) -> HistoryCheck:
    """Replay a device's history and say where the simulation parts from it."""
    history = [e for e in snapshot.history_of(device) if e.action not in {Action.SNAPSHOT, Action.OTHER, Action.OOM}]
    replay = _Checked(config)
    seed(replay.cache.books, first_segments(snapshot, device, config))
    place, difference = 0, ""
    while place < len(history):
        try:
            place += replay.step(history, place)
        except _PartedError as error:
            difference = f"event {place} of {len(history)}, {_words(_told(history[place]))}: {error}"
            break
    counters = replay.cache.counters.all
    return HistoryCheck(
        num_events=len(history),
        num_equal=place,
        difference=difference,
        peaks=Peaks(
            requested_bytes=counters.requested_bytes.peak,
            allocated_bytes=counters.allocated_bytes.peak,
            active_bytes=counters.active_bytes.peak,
            reserved_bytes=counters.reserved_bytes.peak,
        ),
    )


class _Checked:
    """An allocator whose events are compared with those of a history."""

    def __init__(self, config: AllocatorConfig) -> None:
        self.device = _RecordedDevice()
        self.cache = CachingAllocator(config, self.device, timing=EventTiming.AT_SYNCHRONIZE, observer=self.observe)
        self.made: list[Told] = []

    def observe(self, action: str, address: int, size: int, stream: int, owner: int) -> None:
        del owner
        self.made.append((action, address, size, stream))

    def step(self, history: list[HistoryEvent], place: int) -> int:
        """Carry out what the program did next; return how many events that made."""
        event = history[place]
        self.made.clear()
        match event.action:
            case Action.ALLOC | Action.SEGMENT_ALLOC | Action.SEGMENT_MAP:
                expected = self.malloc(history, place)
            case Action.FREE_REQUESTED:
                expected = self.free(history, place)
            case Action.FREE_COMPLETED:
                self.cache.events.complete(self.cache.books, self.block(event))
                expected = [event]
            case _:
                self.give_back(event)
                expected = [event]
        wanted = [_told(e) for e in expected]
        if self.made != wanted:
            raise _PartedError(f"expected {_listed(wanted)}; the simulation made {_listed(self.made)}")
        return len(expected)

    def malloc(self, history: list[HistoryEvent], place: int) -> list[HistoryEvent]:
        end = place
        while end < len(history) and history[end].action in NEW_MEMORY:
            end += 1
        if end == len(history) or history[end].action is not Action.ALLOC:
            raise _PartedError("new memory that no allocation took")
        request = history[end]
        self.device.places = deque(e.address for e in history[place:end])
        pool = request.pool
        if pool != (0, 0):
            self.cache.begin_pool(pool[0] or pool[1])
        self.cache.malloc(max(request.size, 1), request.stream)
        if pool != (0, 0):
            self.cache.end_pool(pool[0] or pool[1])
        return history[place : end + 1]

    def free(self, history: list[HistoryEvent], place: int) -> list[HistoryEvent]:
        event, block = history[place], self.block(history[place])
        following = history[place + 1] if place + 1 < len(history) else None
        at_once = (
            following is not None and following.action is Action.FREE_COMPLETED and following.address == event.address
        )
        if not at_once:
            block.uses = {OTHER_STREAM}
        self.cache.free(block)
        return history[place : place + 1 + at_once]

    def block(self, event: HistoryEvent) -> Block:
        block = self.cache.books.active.get(event.address)
        if block is None:
            raise _PartedError("the simulation holds no such block")
        return block

    def give_back(self, event: HistoryEvent) -> None:
        books = self.cache.books
        halves = [books.small, books.large, *(h for p in books.private.values() for h in (p.small, p.large))]
        for block in [b for half in halves for b in half.blocks.values() if b.mapped]:
            if event.action is Action.SEGMENT_FREE and block.address == event.address and not block.split:
                release_segment(books, block)
                return
            if event.action is Action.SEGMENT_UNMAP and block.address <= event.address < block.address + block.size:
                unmap(books, block)
                return
        raise _PartedError("the simulation has no such free memory")


def _told(event: HistoryEvent) -> Told:
    return (event.action.value, event.address, event.size, event.stream)


def _words(told: Told) -> str:
    action, address, size, stream = told
    return f"{action} of {size:,} B at {address:#x} on stream {stream}"


def _listed(events: list[Told]) -> str:
    return ", then ".join(_words(event) for event in events[:3]) or "nothing"
