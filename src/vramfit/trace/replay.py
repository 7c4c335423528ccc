"""Plays a recording through the simulated allocator: peaks, by step and phase, and what was alive at them.

A replay may follow a recording that is still being written: ``catch_up`` plays what is new. So one that runs beside
the program answers its questions about memory and refuses what the device would refuse.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from vramfit.trace.allocator import CachingAllocator
from vramfit.trace.allocator_block import Block
from vramfit.trace.allocator_config import AllocatorConfig
from vramfit.trace.allocator_device import DeviceMemory, DeviceOutOfMemoryError
from vramfit.trace.allocator_events import EventTiming
from vramfit.trace.recording import ALL_STREAMS, Kind, Mark, MarkedEvent, Recording
from vramfit.trace.replay_alive import Alive, alive_at, words

NO_SPLIT = "no_split"
"""Text of a POOL_BEGIN mark whose pool splits no block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """The highest values of PyTorch's counters over a stretch of time. [B]"""

    requested_bytes: int
    """What was asked for, before rounding."""
    allocated_bytes: int
    """``torch.cuda.max_memory_allocated``."""
    active_bytes: int
    """With what waits for other streams."""
    reserved_bytes: int
    """``torch.cuda.max_memory_reserved``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time between two marks of phase or step."""

    step: int | None
    phase: str
    first: int
    """Index of its first event."""
    end: int
    """Index behind its last event."""
    peaks: Peaks


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent:
    """One action of the allocator, as PyTorch's own memory history lists it."""

    action: str
    address: int
    size: int
    """Requested bytes of an allocation, real bytes of a segment. [B]"""
    stream: int
    owner: int
    """Number of the allocation; -1 = none."""
    event: int
    """Index in the recording."""


class OutOfMemoryInReplayError(DeviceOutOfMemoryError):
    """The device is full: PyTorch's sentence, then what was alive."""

    def __init__(self, cause: DeviceOutOfMemoryError, number: int, event: int, alive: Alive) -> None:
        """``number``: the allocation that was refused."""
        self.__dict__.update(cause.__dict__)
        self.number, self.event, self.alive = number, event, alive
        Exception.__init__(self, f"{cause}\n{words(alive)}")


class Replay:
    """One pass of a recording through an allocator of its own."""

    def __init__(
        self,
        recording: Recording,
        config: AllocatorConfig | None = None,
        device: DeviceMemory | None = None,
        *,
        timing: EventTiming = EventTiming.AT_ONCE,
        keep_trace: bool = False,
    ) -> None:
        """Begin before the first event; ``keep_trace`` keeps every action of the allocator for a snapshot."""
        self.recording = recording
        self.trace: list[TraceEvent] = []
        self.allocator = CachingAllocator(config, device, timing=timing, observer=self._observe if keep_trace else None)
        self.position = 0
        """Events played so far."""
        self.peak_event = 0
        """Event after which most was allocated."""
        self.reserved_peak_event = 0
        self.reserved_steps: list[tuple[int, int]] = []
        """Event after which what is reserved changed, and what it then was."""
        self.block_bytes = array("q")
        """By number of the allocation, the size of its block; 0 = it has none. [B]"""
        self.addresses = array("q")
        """By number of the allocation, where it lay."""
        self._blocks: dict[int, Block] = {}
        self._windows: list[Window] = []
        self._window = Peaks(requested_bytes=0, allocated_bytes=0, active_bytes=0, reserved_bytes=0)
        self._window_first = 0

    def catch_up(self) -> Replay:
        """Play what was recorded since the last call.

        Raises:
            OutOfMemoryInReplayError: the device has no room for an allocation. A program that goes on takes that one
                back in its recording; a further call goes on behind it.
        """
        for kind, subject, stream in self.recording.events(self.position):
            event = self.position
            self.position += 1
            if kind == Kind.ALLOCATE:
                self._allocate(event, subject, stream)
            elif kind == Kind.FREE:
                block = self._blocks.pop(subject, None)
                if block is not None:  # None = the device was full
                    self.allocator.free(block)
            elif kind == Kind.USE:
                if subject in self._blocks:
                    self.allocator.use_on_stream(self._blocks[subject], stream)
            elif kind == Kind.MARK:
                self._mark(self.recording.mark_at(subject))
        return self

    def _allocate(self, event: int, number: int, stream: int) -> None:
        while len(self.block_bytes) <= number:
            self.block_bytes.append(0)
            self.addresses.append(0)
        counters = self.allocator.counters.all
        allocated_peak, reserved_peak = counters.allocated_bytes.peak, counters.reserved_bytes.peak
        try:
            block = self.allocator.malloc(self.recording.num_bytes(number), stream, number)
        except DeviceOutOfMemoryError as error:
            alive = alive_at(self.recording, event - 1, self.size_of)
            raise OutOfMemoryInReplayError(error, number, event, alive) from error
        self._blocks[number] = block
        self.block_bytes[number], self.addresses[number] = block.size, block.address
        self._note_reserved(event)
        if counters.allocated_bytes.peak > allocated_peak:
            self.peak_event = event
        if counters.reserved_bytes.peak > reserved_peak:
            self.reserved_peak_event = event
        now, window = counters, self._window
        if (
            now.allocated_bytes.current > window.allocated_bytes
            or now.active_bytes.current > window.active_bytes
            or now.reserved_bytes.current > window.reserved_bytes
            or now.requested_bytes.current > window.requested_bytes
        ):
            self._window = self._highest()

    def _note_reserved(self, event: int) -> None:
        reserved = self.allocator.books.reserved_bytes
        if not self.reserved_steps or self.reserved_steps[-1][1] != reserved:
            self.reserved_steps.append((event, reserved))

    def _highest(self) -> Peaks:
        """Return the window's peaks with what is there now."""
        now, window = self.allocator.counters.all, self._window
        return Peaks(
            requested_bytes=max(window.requested_bytes, now.requested_bytes.current),
            allocated_bytes=max(window.allocated_bytes, now.allocated_bytes.current),
            active_bytes=max(window.active_bytes, now.active_bytes.current),
            reserved_bytes=max(window.reserved_bytes, now.reserved_bytes.current),
        )

    def _mark(self, marked: MarkedEvent) -> None:
        if marked.mark in {Mark.PHASE, Mark.STEP}:
            self._close_window(marked.event)
            return
        action = ACTIONS.get(marked.mark)
        if action is not None:
            action(self.allocator, marked)
            self._note_reserved(marked.event)

    def _close_window(self, end: int) -> None:
        if end > self._window_first:
            self._windows.append(self._window_until(end))
        self._window_first = end
        now = self.allocator.counters.all
        self._window = Peaks(
            requested_bytes=now.requested_bytes.current,
            allocated_bytes=now.allocated_bytes.current,
            active_bytes=now.active_bytes.current,
            reserved_bytes=now.reserved_bytes.current,
        )

    def _window_until(self, end: int) -> Window:
        return Window(
            step=self.recording.step_at(self._window_first),
            phase=self.recording.phase_at(self._window_first),
            first=self._window_first,
            end=end,
            peaks=self._window,
        )

    @property
    def windows(self) -> tuple[Window, ...]:
        """Peaks by step and phase, the one that is still going on among them."""
        last = (self._window_until(self.position),) if self.position > self._window_first else ()
        return (*self._windows, *last)

    @property
    def peaks(self) -> Peaks:
        """The highest values since the start or the last reset."""
        counters = self.allocator.counters.all
        return Peaks(
            requested_bytes=counters.requested_bytes.peak,
            allocated_bytes=counters.allocated_bytes.peak,
            active_bytes=counters.active_bytes.peak,
            reserved_bytes=counters.reserved_bytes.peak,
        )

    def size_of(self, number: int) -> int:
        """Return the size of an allocation's block. [B]"""
        return self.block_bytes[number] if number < len(self.block_bytes) else 0

    def alive(self, event: int | None = None) -> Alive:
        """Return what was alive after an event; None = at the peak of what was allocated."""
        return alive_at(self.recording, self.peak_event if event is None else event, self.size_of)

    def _observe(self, action: str, address: int, size: int, stream: int, owner: int) -> None:
        self.trace.append(
            TraceEvent(action=action, address=address, size=size, stream=stream, owner=owner, event=self.position - 1)
        )


Action = Callable[[CachingAllocator, MarkedEvent], None]
ACTIONS: dict[Mark, Action] = {
    Mark.EMPTY_CACHE: lambda cache, _: cache.empty_cache(),
    Mark.SYNCHRONIZE: lambda cache, mark: cache.synchronize(None if mark.value == ALL_STREAMS else mark.value),
    Mark.RESET_PEAK: lambda cache, _: cache.counters.reset_peak(),
    Mark.MEMORY_FRACTION: lambda cache, mark: cache.set_memory_fraction(float(mark.text)),
    Mark.CAPTURE_BEGIN: lambda cache, mark: cache.begin_pool(mark.value),
    Mark.CAPTURE_END: lambda cache, mark: cache.end_pool(mark.value),
    Mark.POOL_BEGIN: lambda cache, mark: cache.begin_pool(mark.value, no_split=mark.text == NO_SPLIT),
    Mark.POOL_END: lambda cache, mark: cache.end_pool(mark.value),
    Mark.POOL_RELEASE: lambda cache, mark: cache.release_pool(mark.value),
}
"""What each mark does to the allocator; those of time do nothing."""


def replay_bounds(
    recording: Recording, config: AllocatorConfig | None = None, total_bytes: int | None = None
) -> tuple[Replay, Replay]:
    """Return the replays in which other streams finish at once and as late as can be: least and most memory.

    They are one and the same where no allocation is used on a second stream.
    """

    def play(timing: EventTiming) -> Replay:
        device = None if total_bytes is None else DeviceMemory(total_bytes)
        return Replay(recording, config, device, timing=timing).catch_up()

    low = play(EventTiming.AT_ONCE)
    crossed = any(kind == Kind.USE for kind, _, _ in recording.events())
    return low, play(EventTiming.AT_SYNCHRONIZE) if crossed else low
