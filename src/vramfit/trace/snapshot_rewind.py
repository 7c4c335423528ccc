"""Where a history began: the segments and blocks of a snapshot, taken back event by event."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

from vramfit.errors import InvalidValueError
from vramfit.trace.allocator import LARGEST_SMALL_BYTES, SMALL_SEGMENT_BYTES, rounded
from vramfit.trace.allocator_config import AllocatorConfig
from vramfit.trace.snapshot import Action, BlockState, HistoryEvent, Segment, Snapshot, SnapshotBlock


@dataclass(slots=True)
class _Range:
    """Memory that a device holds, while time runs backwards."""

    address: int
    size: int
    segment: Segment

    @property
    def end(self) -> int:
        return self.address + self.size


def first_segments(snapshot: Snapshot, device: int, config: AllocatorConfig) -> tuple[Segment, ...]:
    """Return the segments of a device as they were before the first event of its history, blocks and all.

    Raises:
        InvalidValueError: the history and the segments do not belong together.
    """
    segments = snapshot.segments_of(device)
    ranges = {s.address: _Range(s.address, s.size, s) for s in segments}
    active = {b.address: b for s in segments for b in s.blocks if b.active}
    history = snapshot.history_of(device)
    for i in range(len(history) - 1, -1, -1):
        event = history[i]
        try:
            _take_back(event, ranges, active)
        except KeyError as error:
            raise InvalidValueError(
                f"device_traces[{device}][{i}]",
                f"{event.action} at {event.address:#x}",
                "a history that leads to the segments",
                "take the snapshot while history is recorded, and do not edit it",
            ) from error
    unsplit = _unsplit(active, history, config)
    active |= {address: replace(active[address], size=size) for address, size in unsplit.items()}
    segments = tuple(_with_blocks(found, active, config) for _, found in sorted(ranges.items()))
    _check_layout(segments, len(active), device)
    return segments


def _check_layout(segments: tuple[Segment, ...], num_active: int, device: int) -> None:
    """Refuse blocks that overlap, or that lie in no segment."""
    fits = sum(block.active for segment in segments for block in segment.blocks) == num_active
    for segment in segments:
        fits = fits and segment.size == sum(block.size for block in segment.blocks)
    if not fits:
        raise InvalidValueError(
            f"device_traces[{device}]",
            "blocks that overlap or lie in no segment",
            "a history that leads to the segments",
            "was PYTORCH_CUDA_ALLOC_CONF what the snapshot says? Take it again while history is recorded",
        )


def _unsplit(
    active: dict[int, SnapshotBlock], history: tuple[HistoryEvent, ...], config: AllocatorConfig
) -> dict[int, int]:
    """Return the sizes of blocks larger than their requests, as far as what lay behind them gives them away.

    An allocation takes the low end of a free block: one that begins a little behind a live block begins where that
    block ends.
    """
    ends = {a: a + rounded(max(b.requested, 1), config) for a, b in active.items() if not b.size}
    alive, found = sorted(active), dict[int, int]()
    for event in history:
        if event.action is Action.FREE_COMPLETED and event.address in active:
            place = bisect_left(alive, event.address)
            if place < len(alive) and alive[place] == event.address:
                del alive[place]
        elif event.action is Action.ALLOC and alive:
            before = alive[bisect_right(alive, event.address) - 1]
            if before in ends and before not in found and 0 <= event.address - ends[before] <= LARGEST_SMALL_BYTES:
                found[before] = event.address - before
    return found


def _take_back(event: HistoryEvent, ranges: dict[int, _Range], active: dict[int, SnapshotBlock]) -> None:
    match event.action:
        case Action.ALLOC:
            _expect(active.pop(event.address).state is BlockState.ALLOCATED, event)
        case Action.FREE_COMPLETED:
            _expect(event.address not in active, event)
            active[event.address] = SnapshotBlock(
                address=event.address,
                size=0,  # not known: the history has requested sizes only
                requested=event.size,
                state=BlockState.PENDING_FREE,
                frames=event.frames,
            )
        case Action.FREE_REQUESTED:
            _expect(active[event.address].state is BlockState.PENDING_FREE, event)
            active[event.address] = replace(active[event.address], state=BlockState.ALLOCATED)
        case Action.SEGMENT_ALLOC:
            del ranges[event.address]
        case Action.SEGMENT_FREE:
            _expect(event.address not in ranges, event)
            ranges[event.address] = _Range(event.address, event.size, _segment(event))
        case Action.SEGMENT_MAP:
            _unmap(event, ranges)
        case Action.SEGMENT_UNMAP:
            _map(event, ranges)


def _expect(holds: bool, event: HistoryEvent) -> None:
    if not holds:
        raise KeyError(event.address)


def _segment(event: HistoryEvent) -> Segment:
    return Segment(
        device=0,
        address=event.address,
        size=event.size,
        stream=event.stream,
        small=event.size == SMALL_SEGMENT_BYTES,
        pool=event.pool,
        expandable=event.action is Action.SEGMENT_UNMAP,
    )


def _unmap(event: HistoryEvent, ranges: dict[int, _Range]) -> None:
    """Cut a piece out of the range that holds it."""
    starts = sorted(ranges)
    place = bisect_right(starts, event.address)
    if not place:
        raise KeyError(event.address)
    held, end = ranges[starts[place - 1]], event.address + event.size
    if held.end < end:
        raise KeyError(event.address)
    after = held.end - end
    held.size = event.address - held.address
    if not held.size:
        del ranges[held.address]
    if after:
        ranges[end] = _Range(end, after, held.segment)


def _map(event: HistoryEvent, ranges: dict[int, _Range]) -> None:
    """Put a piece back, and join it with what it touches."""
    found = _Range(event.address, event.size, _segment(event))
    following = ranges.get(found.end)
    if following is not None and following.segment.stream == event.stream:
        del ranges[following.address]
        found = _Range(found.address, found.size + following.size, following.segment)
    for before in ranges.values():
        if before.end == found.address and before.segment.stream == event.stream:
            before.size += found.size
            return
    ranges[found.address] = found


def _with_blocks(found: _Range, active: dict[int, SnapshotBlock], config: AllocatorConfig) -> Segment:
    """Fill a range with its active blocks and the free room between them."""
    inside = sorted((b for a, b in active.items() if found.address <= a < found.end), key=lambda b: b.address)
    ends = [*(b.address for b in inside[1:]), found.end]
    blocks: list[SnapshotBlock] = []
    place = found.address
    for block, end in zip(inside, ends, strict=False):  # an empty range has an end and no block
        if block.address > place:
            blocks.append(_free(place, block.address - place))
        size = block.size or _size(block.requested, end - block.address, found.segment, config)
        blocks.append(replace(block, size=size))
        place = block.address + size
    if place < found.end:
        blocks.append(_free(place, found.end - place))
    return replace(found.segment, address=found.address, size=found.size, blocks=tuple(blocks))


def _free(address: int, size: int) -> SnapshotBlock:
    return SnapshotBlock(address=address, size=size, requested=0, state=BlockState.INACTIVE)


def _size(requested: int, room: int, segment: Segment, config: AllocatorConfig) -> int:
    """Return the size of a block of which only the request is known: all of its room where it was not split. [B]"""
    size = rounded(max(requested, 1), config)
    if segment.small or segment.expandable or room - size > LARGEST_SMALL_BYTES:
        return size
    return room
