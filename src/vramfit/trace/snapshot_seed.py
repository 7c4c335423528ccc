"""Puts an allocator into the state that a snapshot shows."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.trace.allocator_block import Block, ExpandableSegment, Pool, PrivatePool
from vramfit.trace.allocator_books import Books
from vramfit.trace.allocator_expandable import ENDLESS_RANGE_BYTES, SMALL_PAGE_BYTES
from vramfit.trace.snapshot import BlockState, Segment, SnapshotBlock


def seed(books: Books, segments: Iterable[Segment]) -> None:
    """Fill empty books with segments and their blocks; mapped ranges of one stream and pool lie in one range."""
    ranges: dict[tuple[int, bool, tuple[int, int]], Block] = {}
    for segment in sorted(segments, key=lambda s: s.address):
        pool = _pool(books, segment)
        if not segment.expandable:
            _fill(books, segment, pool, None, None)
            for counters in books.counters_of(pool):
                counters.segment.add(1)
            continue
        kind = (segment.stream, segment.small, segment.pool)
        rest = ranges.get(kind)
        if rest is None:
            page = SMALL_PAGE_BYTES if segment.small else books.config.large_segment_bytes
            expandable = ExpandableSegment(segment.address, ENDLESS_RANGE_BYTES, page)
            books.num_expandable += 1
            rest = _unmapped(segment.address, ENDLESS_RANGE_BYTES, segment.stream, pool, expandable)
        ranges[kind] = _into(books, segment, pool, rest)
    for rest in ranges.values():
        rest.pool.insert_unmapped(rest)
    _count_inactive(books)


def _into(books: Books, segment: Segment, pool: Pool, rest: Block) -> Block:
    """Map a segment into the unmapped end of its range; return the unmapped end behind it."""
    end = rest.address + rest.size
    before: Block | None = rest.previous
    if segment.address > rest.address:  # a hole stays unmapped
        rest.size = segment.address - rest.address
        pool.insert_unmapped(rest)
        before = rest
    last = _fill(books, segment, pool, before, rest.expandable)
    assert rest.expandable is not None, "it lies in an expandable segment"
    after = _unmapped(segment.address + segment.size, 0, segment.stream, pool, rest.expandable)
    after.size = end - after.address
    after.splice(last, None)
    return after


def _unmapped(address: int, size: int, stream: int, pool: Pool, expandable: ExpandableSegment) -> Block:
    block = Block(stream, size, pool, address)
    block.mapped, block.expandable = False, expandable
    return block


def _pool(books: Books, segment: Segment) -> Pool:
    if segment.pool == (0, 0):
        return books.small if segment.small else books.large
    number = segment.pool[0] or segment.pool[1]
    private = books.private.setdefault(number, PrivatePool(number))
    private.num_segments += 1
    return private.small if segment.small else private.large


def _fill(
    books: Books, segment: Segment, pool: Pool, before: Block | None, expandable: ExpandableSegment | None
) -> Block:
    """Make the blocks of a segment; return the last."""
    for counters in books.counters_of(pool):
        counters.reserved_bytes.add(segment.size)
    books.device.map(segment.size)
    for found in segment.blocks:
        block = Block(segment.stream, found.size, pool, found.address)
        block.expandable = expandable
        block.splice(before, None)
        if found.active:
            _hold(books, block, found)
        else:
            pool.insert(block)
        before = block
    assert before is not None, "a segment has blocks"
    return before


def _hold(books: Books, block: Block, found: SnapshotBlock) -> None:
    books.active[block.address] = block
    block.requested = found.requested
    block.allocated = found.state is BlockState.ALLOCATED
    block.events = int(not block.allocated)
    for counters in books.counters_of(block.pool):
        counters.active.add(1)
        counters.active_bytes.add(block.size)
        counters.requested_bytes.add(block.requested)
        if block.allocated:
            counters.allocation.add(1)
            counters.allocated_bytes.add(block.size)


def _count_inactive(books: Books) -> None:
    halves = [books.small, books.large, *(h for p in books.private.values() for h in (p.small, p.large))]
    for half in halves:
        for block in half.blocks.values():
            if block.split and block.expandable is None:
                for counters in books.counters_of(half):
                    counters.inactive_split.add(1)
                    counters.inactive_split_bytes.add(block.size)
