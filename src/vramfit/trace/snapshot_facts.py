"""What a snapshot says about one device: peaks, segments, fragmentation, and the largest tensors with their lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vramfit.trace.allocator_config import AllocatorConfig
from vramfit.trace.recording import Frame
from vramfit.trace.snapshot import Action, Segment, Snapshot, SnapshotBlock, user_frames
from vramfit.trace.snapshot_check import HistoryCheck, check_history
from vramfit.trace.snapshot_rewind import first_segments

NUM_LARGEST = 10
NEW_MEMORY = {Action.SEGMENT_ALLOC, Action.SEGMENT_MAP}
GONE = {Action.SEGMENT_FREE, Action.SEGMENT_UNMAP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One allocation that was alive at a moment."""

    requested: int
    category: str
    """Empty = the snapshot does not say."""
    frames: tuple[Frame, ...]
    """The user's frames, innermost first."""
    recorded: bool = True
    """False = it was made before the history began, or its stack was not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAlike:
    """Allocations of one size, category and line."""

    held: Held
    count: int

    @property
    def requested(self) -> int:
        """All of them. [B]"""
        return self.held.requested * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    """One device of a snapshot; sizes at the end of it unless the name says peak. [B]"""

    device: int
    num_segments: int
    reserved_bytes: int
    active_bytes: int
    requested_bytes: int
    small_pool_bytes: int
    private_pool_bytes: int
    expandable_bytes: int
    returnable_bytes: int
    """Free bytes that emptying the cache would give back: whole segments, or (expandable) at most so much."""
    stuck_bytes: int
    """Free bytes inside segments that are partly in use."""
    largest_free_bytes: int
    num_events: int
    num_ooms: int
    reserved_peak_bytes: int
    """Highest over the history, from its segment events."""
    requested_peak_bytes: int
    """Highest over the history of what was asked for and not yet let go of."""
    at_peak: tuple[HeldAlike, ...]
    """What was alive at that peak, largest group first."""
    check: HistoryCheck

    @property
    def rounding_bytes(self) -> int:
        """What blocks are larger than their requests. [B]"""
        return self.active_bytes - self.requested_bytes


def facts_of(snapshot: Snapshot, device: int, config: AllocatorConfig) -> SnapshotFacts:
    """Return the facts of one device.

    Raises:
        InvalidValueError: its history does not lead to its segments.
    """
    segments = snapshot.segments_of(device)
    first = first_segments(snapshot, device, config)
    history = snapshot.history_of(device)
    blocks = [block for segment in segments for block in segment.blocks]
    free = [block.size for block in blocks if not block.active]
    whole = sum(segment.size for segment in segments if not any(block.active for block in segment.blocks))
    requested_peak, held = _peak(snapshot, device, first)
    return SnapshotFacts(
        device=device,
        num_segments=len(segments),
        reserved_bytes=sum(segment.size for segment in segments),
        active_bytes=sum(block.size for block in blocks if block.active),
        requested_bytes=sum(block.requested for block in blocks if block.active),
        small_pool_bytes=sum(segment.size for segment in segments if segment.small),
        private_pool_bytes=sum(segment.size for segment in segments if segment.pool != (0, 0)),
        expandable_bytes=sum(segment.size for segment in segments if segment.expandable),
        returnable_bytes=whole,
        stuck_bytes=sum(free) - whole,
        largest_free_bytes=max(free, default=0),
        num_events=len(history),
        num_ooms=sum(event.action is Action.OOM for event in history),
        reserved_peak_bytes=max(_reserved(snapshot, device, first)),
        requested_peak_bytes=requested_peak,
        at_peak=tuple(alike(held)),
        check=check_history(snapshot, device, config),
    )


def _reserved(snapshot: Snapshot, device: int, first: Iterable[Segment]) -> Iterator[int]:
    """Yield what is reserved, from the first event on."""
    now = sum(segment.size for segment in first)
    yield now
    for event in snapshot.history_of(device):
        now += event.size * ((event.action in NEW_MEMORY) - (event.action in GONE))
        yield now


def held_at_peak(snapshot: Snapshot, device: int, config: AllocatorConfig) -> tuple[Held, ...]:
    """Return the allocations that were alive when most was asked for."""
    return _peak(snapshot, device, first_segments(snapshot, device, config))[1]


def _peak(snapshot: Snapshot, device: int, first: tuple[Segment, ...]) -> tuple[int, tuple[Held, ...]]:
    history = snapshot.history_of(device)
    alive = {block.address: _held(block) for segment in first for block in segment.blocks if block.active}
    now = best = sum(held.requested for held in alive.values())
    best_at = 0
    for i, event in enumerate(history):
        now += event.size * ((event.action is Action.ALLOC) - (event.action is Action.FREE_COMPLETED))
        if now > best:
            best, best_at = now, i + 1
    for event in history[:best_at]:
        if event.action is Action.ALLOC:
            alive[event.address] = Held(requested=event.size, category=event.category, frames=user_frames(event.frames))
        elif event.action is Action.FREE_COMPLETED:
            del alive[event.address]
    return best, tuple(alive.values())


def _held(block: SnapshotBlock) -> Held:
    frames = user_frames(block.frames)
    return Held(requested=block.requested, category="", frames=frames, recorded=bool(block.frames))


def alike(held: Iterable[Held]) -> list[HeldAlike]:
    """Return equal allocations together, what takes most first."""
    counts = Counter(replace(one, frames=one.frames[:1]) for one in held)
    groups = [HeldAlike(held=one, count=count) for one, count in counts.items()]
    return sorted(groups, key=lambda group: -group.requested)
