"""Blocks and the pools that hold the free ones: what the caching allocator keeps its books in."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

ADDRESS_BITS = 52
"""User addresses of a 64-bit process lie below this; a free block is known by ``size << 52 | address``."""
ADDRESS_MASK = (1 << ADDRESS_BITS) - 1


class Block:
    """A piece of a segment: handed out, waiting for another stream, free, or (expandable) not backed by memory."""

    __slots__ = (
        "address", "allocated", "collection_count", "events", "expandable", "mapped", "next", "owner", "pool",
        "previous", "requested", "size", "stream", "uses",
    )  # fmt: skip

    def __init__(self, stream: int, size: int, pool: Pool, address: int) -> None:
        """Describe a block that is neither handed out nor in its pool's set of free blocks."""
        self.stream, self.size, self.pool, self.address = stream, size, pool, address
        self.requested = 0
        self.allocated = False
        self.mapped = True
        self.previous: Block | None = None
        self.next: Block | None = None
        self.uses: set[int] | None = None
        """Other streams that worked with it; None = none did."""
        self.events = 0
        """Events of other streams that are still outstanding."""
        self.expandable: ExpandableSegment | None = None
        self.collection_count = 0
        self.owner = -1
        """Whatever its user calls it by, such as the number of an allocation in a recording."""

    @property
    def split(self) -> bool:
        """True for a part of a segment, not the whole."""
        return self.previous is not None or self.next is not None

    @property
    def idle(self) -> bool:
        """True when nobody holds it and no stream is still to finish with it."""
        return not self.allocated and not self.events and not self.uses

    def splice(self, before: Block | None, after: Block | None) -> None:
        """Stand between two neighbours."""
        self.previous, self.next = before, after
        if before is not None:
            before.next = self
        if after is not None:
            after.previous = self


class ExpandableSegment:
    """A range of addresses that memory is mapped into page by page."""

    __slots__ = ("address", "page_bytes", "size")

    def __init__(self, address: int, size: int, page_bytes: int) -> None:
        """Reserve a range of whole pages; nothing is mapped yet."""
        self.address, self.size, self.page_bytes = address, size, page_bytes


class Pool:
    """Free blocks by stream, size and address; unmapped ones by stream and address."""

    __slots__ = ("blocks", "free", "private", "searches", "small", "unmapped")

    def __init__(self, *, small: bool, private: PrivatePool | None = None) -> None:
        """Begin empty; ``private`` names the pool it is half of."""
        self.small, self.private = small, private
        self.free: dict[int, list[int]] = {}
        self.blocks: dict[int, Block] = {}
        self.unmapped: dict[int, list[int]] = {}
        self.searches = 0
        """How often it was searched, while collection is on: the clock of a block's age."""

    def insert(self, block: Block) -> None:
        """Put a free block in."""
        block.collection_count = self.searches
        self.blocks[block.address] = block
        key = block.size << ADDRESS_BITS | block.address
        keys = self.free.get(block.stream)
        if keys is None:
            self.free[block.stream] = [key]
        else:
            insort(keys, key)

    def remove(self, block: Block) -> None:
        """Take a free block out."""
        keys = self.free[block.stream]
        del keys[bisect_left(keys, block.size << ADDRESS_BITS | block.address)]
        del self.blocks[block.address]

    def insert_unmapped(self, block: Block) -> None:
        """Put a block without memory in."""
        self.blocks[block.address] = block
        insort(self.unmapped.setdefault(block.stream, []), block.address)

    def remove_unmapped(self, block: Block) -> None:
        """Take a block without memory out."""
        addresses = self.unmapped[block.stream]
        del addresses[bisect_left(addresses, block.address)]
        del self.blocks[block.address]

    def in_order(self) -> Iterator[Block]:
        """Yield the free blocks by stream, size and address; they may be removed while they are walked."""
        for stream in sorted(self.free):
            for key in tuple(self.free[stream]):
                yield self.blocks[key & ADDRESS_MASK]


class PrivatePool:
    """Memory of its own for a captured graph or a user's pool, never mixed with the public pools."""

    __slots__ = ("large", "no_split", "num_segments", "number", "small", "users")

    def __init__(self, number: int, *, no_split: bool = False) -> None:
        """Begin with one user and nothing in it."""
        self.number, self.no_split = number, no_split
        self.users = 1
        self.num_segments = 0
        self.small = Pool(small=True, private=self)
        self.large = Pool(small=False, private=self)
