"""Expandable segments: one range of addresses per stream and pool that memory is mapped into as it is needed."""

from __future__ import annotations

from vramfit.trace.allocator_block import Block, ExpandableSegment, Pool
from vramfit.trace.allocator_books import Books

EXPANDABLE_PRIVATE_POOLS = (2, 5)
"""From here on private pools may be expandable; 2.4 excludes them.
Source: pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp, alloc_block."""
SMALL_PAGE_BYTES = 2 * 2**20
RESERVED_EIGHTHS = 9
"""A range holds 9/8 of the device's memory, so that pages unmapped low can come back high."""
ENDLESS_RANGE_BYTES = 2**43
"""Range of addresses where the device's memory has no end. Ours: room for eight TiB."""


def map_pages(books: Books, pool: Pool, size: int, stream: int) -> Block | None:
    """Return a block of at least ``size`` made from the lowest addresses that have room; None = no memory left."""
    block = _lowest_with_room(books, pool, size, stream)
    if not block.mapped and not _map(books, block, min(block.size, size)):
        return None
    while block.size < size:
        following = block.next
        assert following is not None, "the range was found to have room"
        if not _map(books, following, min(size - block.size, following.size)):
            return None
        block = following
    pool.remove(block)
    return block


def _lowest_with_room(books: Books, pool: Pool, size: int, stream: int) -> Block:
    for address in pool.unmapped.get(stream, ()):
        block = pool.blocks[address]
        if block.previous is not None and block.previous.idle:
            block = block.previous
        if _has_room(block, size):
            return block
    page = SMALL_PAGE_BYTES if pool.small else books.config.large_segment_bytes
    device = books.device
    room = ENDLESS_RANGE_BYTES if device.endless else device.total_bytes * RESERVED_EIGHTHS // 8
    room = -(-room // page) * page
    segment = ExpandableSegment(device.reserve(room), room, page)
    block = Block(stream, room, pool, segment.address)
    block.mapped, block.expandable = False, segment
    pool.insert_unmapped(block)
    books.num_expandable += 1
    return block


def _has_room(block: Block | None, size: int) -> bool:
    room = 0
    while block is not None and block.idle and room < size:
        room += block.size
        block = block.next
    return room >= size


def _map(books: Books, block: Block, size: int) -> bool:
    """Put whole pages behind the beginning of a block and merge it with its free neighbours."""
    segment, pool = block.expandable, block.pool
    assert segment is not None, "only expandable blocks are unmapped"
    mapped = -(-size // segment.page_bytes) * segment.page_bytes
    if not books.device.map(mapped):
        return False
    address = block.address
    pool.remove_unmapped(block)
    block.mapped = True
    if mapped < block.size:
        rest = Block(block.stream, block.size - mapped, pool, block.address + mapped)
        rest.mapped, rest.expandable = False, segment
        rest.splice(block, block.next)
        pool.insert_unmapped(rest)
        block.size = mapped
    books.merge(block, block.previous)
    books.merge(block, block.next)
    pool.insert(block)
    for counters in books.counters_of(pool):
        counters.reserved_bytes.add(mapped)
    books.counters.num_device_alloc += 1
    books.tell("segment_map", address, mapped, block.stream)
    return True


def unmap(books: Books, block: Block) -> None:
    """Give the whole pages inside a free block back; what is left of it at either end stays free."""
    segment, pool = block.expandable, block.pool
    assert segment is not None, "only expandable blocks are unmapped"
    page = segment.page_bytes
    first = segment.address + -(-(block.address - segment.address) // page) * page
    last = segment.address + (block.address + block.size - segment.address) // page * page
    if first >= last:
        return
    pool.remove(block)
    before, after = first - block.address, block.address + block.size - last
    if before:
        head = Block(block.stream, before, pool, block.address)
        head.expandable = segment
        head.splice(block.previous, block)
        pool.insert(head)
    if after:
        tail = Block(block.stream, after, pool, last)
        tail.expandable = segment
        tail.splice(block, block.next)
        pool.insert(tail)
    block.address, block.size, block.mapped = first, last - first, False
    books.merge(block, block.previous)
    books.merge(block, block.next)
    pool.insert_unmapped(block)
    for counters in books.counters_of(pool):
        counters.reserved_bytes.take(last - first)
    books.device.give_back(last - first)
    books.counters.num_device_free += 1
    if pool.private is not None:
        pool.private.num_segments = max(0, pool.private.num_segments - 1)
    books.tell("segment_unmap", first, last - first, block.stream)
    if block.previous is None and block.next is None:
        pool.remove_unmapped(block)
        books.num_expandable -= 1
