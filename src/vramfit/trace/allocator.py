"""The CUDA caching allocator of PyTorch, simulated: what is handed out, from where, and what the device is asked for.

Best fit by (stream, size, address) in a small and a large pool, splitting, merging, expandable segments, private pools.
Source: pytorch/pytorch:c10/cuda/CUDACachingAllocator.cpp, 2.4 to 2.15; where versions differ, the configuration says
which one is meant.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from vramfit.trace.allocator_block import ADDRESS_BITS, ADDRESS_MASK, Block, Pool, PrivatePool
from vramfit.trace.allocator_books import Books, Observer
from vramfit.trace.allocator_config import SMALLEST_HUGE_BYTES, UNLIMITED, AllocatorConfig
from vramfit.trace.allocator_counters import Counters
from vramfit.trace.allocator_device import DeviceMemory, DeviceOutOfMemoryError
from vramfit.trace.allocator_events import EventTiming, StreamEvents
from vramfit.trace.allocator_expandable import EXPANDABLE_PRIVATE_POOLS, map_pages
from vramfit.trace.allocator_release import collect_garbage, release_all, release_available
from vramfit.units import MIB

SMALLEST_BLOCK_BYTES = 512
LARGEST_SMALL_BYTES = MIB
SMALL_SEGMENT_BYTES = 2 * MIB
HUGE_STEP_BYTES = 2 * MIB


@dataclass(frozen=True, slots=True)
class Capture:
    """A pool that serves in place of the public ones for a while."""

    pool: PrivatePool
    streams: frozenset[int] | None
    """Streams whose requests it takes; None = all."""


def rounded(requested: int, config: AllocatorConfig) -> int:
    """Return the size of block that a request needs. [B]

    Multiples of 512; with ``roundup_power2_divisions``, that many equal steps between two powers of two.

    >>> rounded(1200, AllocatorConfig()), rounded(1200, AllocatorConfig(divisions=(2,) * 16))
    (1536, 1536)
    """
    divisions = config.divisions_of(requested) if requested >= SMALLEST_BLOCK_BYTES else 0
    if divisions > 1 and requested > SMALLEST_BLOCK_BYTES * divisions:
        floor = 1 << requested.bit_length() - 1
        step = floor >> divisions.bit_length() - 1
        return -(-requested // step) * step if step else floor << (requested != floor)
    return max(SMALLEST_BLOCK_BYTES, -(-requested // SMALLEST_BLOCK_BYTES) * SMALLEST_BLOCK_BYTES)


def segment_bytes(rounded_size: int, config: AllocatorConfig) -> int:
    """Return what the device is asked for when no cached block fits. [B]"""
    if rounded_size <= LARGEST_SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if rounded_size < SMALLEST_HUGE_BYTES:
        return config.large_segment_bytes
    return -(-rounded_size // HUGE_STEP_BYTES) * HUGE_STEP_BYTES


class CachingAllocator:
    """One device's allocator; ``malloc`` returns a block, which ``free`` takes back."""

    def __init__(
        self,
        config: AllocatorConfig | None = None,
        device: DeviceMemory | None = None,
        *,
        timing: EventTiming = EventTiming.AT_ONCE,
        observer: Observer | None = None,
    ) -> None:
        """Begin with nothing cached; without a device, memory never ends."""
        self.books = Books(config or AllocatorConfig(), device or DeviceMemory(), observer)
        self.captures: list[Capture] = []
        self.events = StreamEvents(timing)
        self._plain_sizes = not any(d > 1 for d in self.config.divisions)
        self._limited = self.config.max_split_bytes < UNLIMITED
        if self.config.memory_fraction is not None:
            self.set_memory_fraction(self.config.memory_fraction)

    @property
    def config(self) -> AllocatorConfig:
        """What it was told."""
        return self.books.config

    @property
    def counters(self) -> Counters:
        """What ``torch.cuda.memory_stats`` would show."""
        return self.books.counters

    @property
    def device(self) -> DeviceMemory:
        """The device below."""
        return self.books.device

    def set_memory_fraction(self, fraction: float) -> None:
        """Allow a share of the device's memory (``torch.cuda.set_per_process_memory_fraction``)."""
        self.books.allowed_bytes = int(fraction * self.device.total_bytes)

    # Allocation

    def malloc(self, requested: int, stream: int = 0, owner: int = -1) -> Block:
        """Hand out a block of at least ``requested`` bytes (above 0).

        Raises:
            DeviceOutOfMemoryError: neither the cache nor the device has that much.
        """
        if self.events.outstanding and not self.captures:
            self.events.process(self.books)
        size = (requested + 511) & -512 if self._plain_sizes else rounded(requested, self.config)
        if self.captures:
            pool = self._pool(size, stream)
        else:
            pool = self.books.small if size <= LARGEST_SMALL_BYTES else self.books.large
        block = self._cached(pool, size, stream) or self._new(pool, size, stream)
        return self._hand_out(block, pool, size, requested, owner)

    def _pool(self, size: int, stream: int) -> Pool:
        small = size <= LARGEST_SMALL_BYTES
        for capture in reversed(self.captures):  # the one begun last is asked first
            if capture.streams is None or stream in capture.streams:
                return capture.pool.small if small else capture.pool.large
        return self.books.small if small else self.books.large

    def _cached(self, pool: Pool, size: int, stream: int) -> Block | None:
        """Return the free block that fits best, taken out of its pool; None = none does."""
        if self.books.allowed_bytes is not None and self.books.collecting:
            pool.searches += 1
        keys = pool.free.get(stream)
        if not keys:
            return None
        place = bisect_left(keys, size << ADDRESS_BITS)
        if place == len(keys):
            return None
        if self.books.num_expandable:
            place = self._expandable_place(pool, keys, place)
        if self._limited and place < len(keys):
            limit, found = self.config.max_split_bytes, keys[place] >> ADDRESS_BITS
            if (size < limit <= found) or (size >= limit and found >= size + self.config.max_non_split_rounding_bytes):
                return None
        if place == len(keys):
            return None
        return pool.blocks.pop(keys.pop(place) & ADDRESS_MASK)

    def _expandable_place(self, pool: Pool, keys: list[int], place: int) -> int:
        """Return which key to take when expandable segments exist: one counts with the room behind it."""

        def at(index: int) -> Block:
            return pool.blocks[keys[index] & ADDRESS_MASK]

        if self.config.expandable:
            while place + 1 < len(keys) and at(place).expandable and _room(at(place + 1)) < _room(at(place)):
                place += 1
            return place
        while place < len(keys) and at(place).expandable:
            place += 1
        return place

    def _new(self, pool: Pool, size: int, stream: int) -> Block:
        """Return a block from the device, after whatever has to be released for it."""
        if self.books.collecting:
            collect_garbage(self.books)
        asked = segment_bytes(size, self.config)
        block = self._from_device(pool, size, stream, asked)
        if block is None and self._limited and release_available(self.books, pool, size, stream):
            block = self._from_device(pool, size, stream, asked)
        if block is None and not self.captures:
            release_all(self.books, self.events)
            self.counters.num_alloc_retries += 1
            block = self._from_device(pool, size, stream, asked)
        if block is None:
            self.counters.num_ooms += 1
            self.books.tell("oom", self.device.free_bytes, size, stream)
            raise DeviceOutOfMemoryError(
                self.device, self.counters, asked, self.books.allowed_bytes, self.books.private_cached_bytes
            )
        return block

    def _from_device(self, pool: Pool, size: int, stream: int, asked: int) -> Block | None:
        allowed = self.books.allowed_bytes
        if allowed is not None and self.books.reserved_bytes + asked > allowed:
            return None
        by_pages = pool.private is None or self.config.version >= EXPANDABLE_PRIVATE_POOLS
        if self.config.expandable and by_pages:
            block = map_pages(self.books, pool, size, stream)
            if block is not None and pool.private is not None:
                pool.private.num_segments += 1
            return block
        address = self.device.take(asked)
        if address is None:
            return None
        if pool.private is not None:
            pool.private.num_segments += 1
        for counters in self.books.counters_of(pool):
            counters.segment.add(1)
            counters.reserved_bytes.add(asked)
        if asked >= self.config.max_split_bytes:
            self.counters.oversize_segments.add(1)
        self.counters.num_device_alloc += 1
        self.books.tell("segment_alloc", address, asked, stream)
        return Block(stream, asked, pool, address)

    def _hand_out(self, block: Block, pool: Pool, size: int, requested: int, owner: int) -> Block:
        remaining = block.size - size
        every, counters = self.books.counters_of(pool)
        already_split = block.previous is not None or block.next is not None
        if self._splits(pool, size, remaining):
            rest = Block(block.stream, remaining, pool, block.address + size)
            rest.expandable = block.expandable
            rest.previous, rest.next = block, block.next
            if rest.next is not None:
                rest.next.previous = rest
            block.next, block.size = rest, size
            pool.insert(rest)
            if block.expandable is None:
                if already_split:
                    every.inactive_split_bytes.take(size)
                    counters.inactive_split_bytes.take(size)
                else:
                    every.inactive_split_bytes.add(remaining)
                    counters.inactive_split_bytes.add(remaining)
                    every.inactive_split.add(1)
                    counters.inactive_split.add(1)
        elif already_split and block.expandable is None:
            every.inactive_split_bytes.take(block.size)
            counters.inactive_split_bytes.take(block.size)
            every.inactive_split.take(1)
            counters.inactive_split.take(1)
        block.allocated, block.requested, block.owner = True, requested, owner
        self.books.active[block.address] = block
        every.hand_out(block.size, requested)
        counters.hand_out(block.size, requested)
        if self._limited and block.size >= self.config.max_split_bytes:
            self.counters.oversize_allocations.add(1)
        if self.books.observer is not None:
            self.books.observer("alloc", block.address, requested, block.stream, owner)
        return block

    def _splits(self, pool: Pool, size: int, remaining: int) -> bool:
        if pool.private is not None and pool.private.no_split:
            return False
        if pool.small or self.config.expandable:
            return remaining >= SMALLEST_BLOCK_BYTES
        return size < self.config.max_split_bytes and remaining > LARGEST_SMALL_BYTES

    # Freeing

    def free(self, block: Block) -> None:
        """Take a block back; another stream that worked with it is waited for."""
        assert block.allocated, "a block is freed once"
        block.allocated = False
        for each in self.books.counters_of(block.pool):
            each.allocation.take(1)
            each.allocated_bytes.take(block.size)
        if self.books.observer is not None:
            self.books.observer("free_requested", block.address, block.requested, block.stream, block.owner)
        if self._limited and block.size >= self.config.max_split_bytes:
            self.counters.oversize_allocations.take(1)
        if block.uses:
            self.events.wait_for(block, postponed=bool(self.captures) and not self.config.record_stream_reuse)
        else:
            self.books.finish_free(block)

    def use_on_stream(self, block: Block, stream: int) -> None:
        """Note that another stream works with a block (``Tensor.record_stream``)."""
        if stream != block.stream:
            block.uses = {*(block.uses or ()), stream}
            if self.captures:
                self.events.used_in_capture(block, stream)

    # What the program may ask for

    def empty_cache(self) -> None:
        """Give every unsplit cached segment back to the device."""
        if not self.captures:
            release_all(self.books, self.events)

    def synchronize(self, stream: int | None = None) -> None:
        """Note that the host waited for a stream; None = for all."""
        self.events.synchronize(stream)

    def begin_pool(self, number: int, streams: frozenset[int] | None = None, *, no_split: bool = False) -> None:
        """Serve requests from a private pool from here on."""
        pool = self.books.private.get(number)
        if pool is None:
            pool = self.books.private[number] = PrivatePool(number, no_split=no_split)
        else:
            pool.users += 1
        self.captures.append(Capture(pool, streams))

    def end_pool(self, number: int) -> None:
        """Serve requests from the public pools again."""
        self.captures = [capture for capture in self.captures if capture.pool.number != number]

    def release_pool(self, number: int) -> None:
        """Say that one graph fewer uses a private pool; what nobody uses is given back when the cache is emptied."""
        pool = self.books.private[number]
        pool.users -= 1
        if not pool.users:
            self.books.releasable[number] = pool


def _room(block: Block) -> int:
    """Return a block's bytes with the unmapped ones right behind it. [B]"""
    following = block.next
    return block.size + (following.size if following is not None and not following.mapped else 0)
