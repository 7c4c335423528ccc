"""The books of one device's allocator: its pools, counters and what is handed out; how a block comes back."""

from __future__ import annotations

from collections.abc import Callable

from vramfit.trace.allocator_block import Block, Pool, PrivatePool
from vramfit.trace.allocator_config import AllocatorConfig
from vramfit.trace.allocator_counters import Counters, PoolCounters
from vramfit.trace.allocator_device import DeviceMemory

Observer = Callable[[str, int, int, int, int], None]
"""Told of every action: its name, address, size, stream and the owner of the block."""


class Books:
    """Everything that is written down about one device; whoever allocates, frees or releases writes here."""

    __slots__ = (
        "active", "allowed_bytes", "config", "counters", "device", "large", "num_expandable", "observer", "private",
        "releasable", "small",
    )  # fmt: skip

    def __init__(self, config: AllocatorConfig, device: DeviceMemory, observer: Observer | None) -> None:
        """Begin with nothing cached."""
        self.config, self.device, self.observer = config, device, observer
        self.counters = Counters()
        self.small, self.large = Pool(small=True), Pool(small=False)
        self.private: dict[int, PrivatePool] = {}
        self.releasable: dict[int, PrivatePool] = {}
        """Private pools that no graph uses any more."""
        self.active: dict[int, Block] = {}
        """Blocks handed out or waiting for events, by address."""
        self.num_expandable = 0
        """Expandable segments there are; while there are none, a search takes the first fit."""
        self.allowed_bytes: int | None = None
        """Most that may be reserved; None = no fraction was set."""

    @property
    def reserved_bytes(self) -> int:
        """Bytes of segments and mapped pages now. [B]"""
        return self.counters.all.reserved_bytes.current

    @property
    def collecting(self) -> bool:
        """True when cached blocks are collected by age: a fraction and a threshold are set."""
        return self.allowed_bytes is not None and self.config.garbage_collection_threshold > 0

    @property
    def private_cached_bytes(self) -> int:
        """Free bytes inside private pools. [B]"""
        halves = (half for pool in self.private.values() for half in (pool.small, pool.large))
        return sum(block.size for half in halves for block in half.in_order())

    def finish_free(self, block: Block) -> None:
        """Merge a block that nobody waits for with its free neighbours and cache it."""
        if self.observer is not None:
            self.observer("free_completed", block.address, block.requested, block.stream, block.owner)
        pool = block.pool
        del self.active[block.address]
        size, requested, blocks, gained = block.size, block.requested, 0, 0
        block.requested, block.owner = 0, -1
        for neighbour in (block.previous, block.next):
            if neighbour is not None:
                merged = self.merge(block, neighbour)
                if merged:
                    blocks -= 1
                    gained -= merged
        pool.insert(block)
        if block.previous is not None or block.next is not None:
            blocks += 1
            gained += block.size
        for each in self.counters_of(pool):
            if gained and block.expandable is None:
                each.inactive_split.change(blocks)
                each.inactive_split_bytes.change(gained)
            each.cache(size, requested)

    def merge(self, block: Block, neighbour: Block | None) -> int:
        """Swallow an idle neighbour of the same kind; return its bytes, 0 = it stays."""
        if neighbour is None or neighbour.allocated or neighbour.events or neighbour.uses:
            return 0
        if neighbour.mapped != block.mapped:
            return 0
        if neighbour.mapped:
            block.pool.remove(neighbour)
        else:
            block.pool.remove_unmapped(neighbour)
        if block.previous is neighbour:
            block.address, block.previous = neighbour.address, neighbour.previous
            if block.previous is not None:
                block.previous.next = block
        else:
            block.next = neighbour.next
            if block.next is not None:
                block.next.previous = block
        block.size += neighbour.size
        return neighbour.size

    def counters_of(self, pool: Pool) -> tuple[PoolCounters, PoolCounters]:
        """Return the counters that a pool's blocks are counted in."""
        return self.counters.all, self.counters.small_pool if pool.small else self.counters.large_pool

    def tell(self, action: str, address: int, size: int, stream: int, owner: int = -1) -> None:
        """Let the observer know of an action."""
        if self.observer is not None:
            self.observer(action, address, size, stream, owner)
