"""How cached memory goes back to the device: all of it, just enough of it, or what has not been used for long."""

from __future__ import annotations

from bisect import bisect_left

from vramfit.trace.allocator_block import ADDRESS_BITS, ADDRESS_MASK, Block, Pool
from vramfit.trace.allocator_books import Books
from vramfit.trace.allocator_events import StreamEvents
from vramfit.trace.allocator_expandable import unmap


def release_all(books: Books, events: StreamEvents) -> None:
    """Wait for every stream, then give back every unsplit cached segment and every whole free page."""
    books.counters.num_sync_all_streams += 1
    events.process(books, all_of_them=True)
    _release_pool(books, books.large)
    _release_pool(books, books.small)
    for number, private in list(books.releasable.items()):
        _release_pool(books, private.small)
        _release_pool(books, private.large)
        if not private.num_segments:
            del books.private[number], books.releasable[number]


def _release_pool(books: Books, pool: Pool) -> None:
    pages: list[Block] = []
    for block in pool.in_order():
        if block.expandable is not None:
            pages.append(block)
        elif not block.split:
            release_segment(books, block)
    for block in pages:
        unmap(books, block)


def release_segment(books: Books, block: Block) -> None:
    """Give one whole segment back."""
    pool = block.pool
    pool.remove(block)
    books.device.give_back(block.size)
    if pool.private is not None:
        pool.private.num_segments -= 1
    for counters in books.counters_of(pool):
        counters.segment.take(1)
        counters.reserved_bytes.take(block.size)
    if block.size >= books.config.max_split_bytes:
        books.counters.oversize_segments.take(1)
    books.counters.num_device_free += 1
    books.tell("segment_free", block.address, block.size, block.stream)


def release_available(books: Books, pool: Pool, size: int, stream: int) -> bool:
    """Give back the smallest cached block that is large enough and too large to split, or the largest until enough.

    Only with ``max_split_size_mb``; True = at least that much went back.
    """
    limit = books.config.max_split_bytes
    wanted = max(size, limit)
    keys = pool.free.get(stream, [])
    place = bisect_left(keys, wanted << ADDRESS_BITS)
    if place < len(keys):
        release_segment(books, pool.blocks[keys[place] & ADDRESS_MASK])
        return True
    released = 0
    while keys and released < wanted and keys[-1] >> ADDRESS_BITS >= limit:
        block = pool.blocks[keys[-1] & ADDRESS_MASK]
        if block.split or block.expandable is not None:  # only a whole segment can go back
            break
        released += block.size
        release_segment(books, block)
    return released >= wanted


def collect_garbage(books: Books) -> None:
    """Give back the cached large segments that were not used for longest, until reserved memory is below the threshold.

    Repeats for those at least as old as the average of what is left.
    """
    assert books.allowed_bytes is not None, "collection needs a fraction of the device"
    threshold = int(books.config.garbage_collection_threshold * books.allowed_bytes)
    wanted = books.reserved_bytes - threshold
    if wanted <= 0:
        return
    pool = books.large
    whole = [block for block in pool.in_order() if not block.split and block.expandable is None]
    ages = sum(pool.searches - block.collection_count for block in whole)
    released, progress = 0, True
    while released < wanted and progress and whole:
        average, progress, left = ages / len(whole), False, []
        for block in whole:
            age = pool.searches - block.collection_count
            if age < average:
                left.append(block)
                continue
            progress = True
            released += block.size
            ages -= age
            release_segment(books, block)
        whole = left
