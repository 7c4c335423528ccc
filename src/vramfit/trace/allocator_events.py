"""Blocks that another stream worked with: they are cached only when that stream is known to have finished.

When that is depends on how long kernels run, which no simulation knows. Two replays bound it.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from vramfit.trace.allocator_block import Block
from vramfit.trace.allocator_books import Books


class EventTiming(StrEnum):
    """When the work of another stream is taken to be finished."""

    AT_ONCE = "at_once"
    """By the next allocation: the least memory."""
    AT_SYNCHRONIZE = "at_synchronize"
    """When the host next waits for that stream: the most memory."""


class StreamEvents:
    """Events of other streams that freed blocks wait for, in order for each stream."""

    __slots__ = ("_in_capture", "_postponed", "_queues", "_seen", "timing")

    def __init__(self, timing: EventTiming) -> None:
        """Begin with nothing outstanding."""
        self.timing = timing
        self._queues: dict[int, deque[Block]] = {}
        self._seen: dict[int, int] = {}
        """How many events of a stream, from its oldest, the host has waited for."""
        self._postponed: list[Block] = []
        self._in_capture: dict[Block, set[int]] = {}

    @property
    def outstanding(self) -> bool:
        """True when some block waits."""
        return bool(self._queues or self._postponed)

    def wait_for(self, block: Block, *, postponed: bool) -> None:
        """Let a freed block wait for the streams that used it; during a capture, from its end on."""
        if postponed:
            self._postponed.append(block)
            return
        streams, block.uses = sorted(block.uses or ()), None
        for stream in streams:
            block.events += 1
            self._queues.setdefault(stream, deque()).append(block)

    def used_in_capture(self, block: Block, stream: int) -> None:
        """Remember a use that happened while a graph was captured: by the capture's end it is over."""
        self._in_capture.setdefault(block, set()).add(stream)

    def synchronize(self, stream: int | None) -> None:
        """Count what is outstanding on a stream (None = on all) as finished."""
        for number in [stream] if stream is not None else list(self._queues):
            self._seen[number] = len(self._queues.get(number, ()))

    def process(self, books: Books, *, all_of_them: bool = False) -> None:
        """Cache the blocks whose events are finished."""
        self._from_captures(books)
        for stream in list(self._queues):
            queue = self._queues[stream]
            finished = len(queue)
            if self.timing is EventTiming.AT_SYNCHRONIZE and not all_of_them:
                finished = self._seen.get(stream, 0)
            for _ in range(finished):
                block = queue.popleft()
                block.events -= 1
                if not block.events:
                    books.finish_free(block)
            self._seen[stream] = 0
            if not queue:
                del self._queues[stream]

    def complete(self, books: Books, block: Block) -> None:
        """Cache one block that waits, whatever its streams do: somebody saw that they had finished."""
        for stream, queue in list(self._queues.items()):
            if block in queue:
                queue.remove(block)
            if not queue:
                del self._queues[stream]
        block.events = 0
        books.finish_free(block)

    def _from_captures(self, books: Books) -> None:
        """Begin to wait for the blocks that were freed during a capture."""
        postponed, self._postponed = self._postponed, []
        for block in postponed:
            block.uses = (block.uses or set()) - self._in_capture.pop(block, set())
            self.wait_for(block, postponed=False)
            if not block.events:
                books.finish_free(block)
