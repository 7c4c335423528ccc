"""Laws of the simulated allocator: whatever a program does, the books agree with the blocks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from vramfit.trace.allocator import CachingAllocator
from vramfit.trace.allocator_block import Block
from vramfit.trace.allocator_config import parse_config
from vramfit.trace.allocator_device import DeviceMemory, DeviceOutOfMemoryError
from vramfit.trace.allocator_events import EventTiming
from vramfit.units import MIB

CONFIGS = st.sampled_from(
    [
        "",
        "expandable_segments:True",
        "max_split_size_mb:32",
        "roundup_power2_divisions:8",
        "garbage_collection_threshold:0.6,per_process_memory_fraction:0.9",
        "large_segment_size_mb:32,expandable_segments:True,roundup_power2_divisions:[16:2,>:4]",
    ]
)
SIZES = st.one_of(st.integers(1, 4096), st.integers(MIB // 2, 2 * MIB), st.integers(9 * MIB, 60 * MIB))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), SIZES, st.integers(0, 1)),
        st.tuples(st.just("free"), st.integers(0, 10**6), st.just(0)),
        st.tuples(st.just("use"), st.integers(0, 10**6), st.integers(0, 2)),
        st.tuples(st.sampled_from(["empty", "synchronize", "begin", "end"]), st.just(0), st.just(0)),
    ),
    max_size=60,
)
DEVICE = 400 * MIB


def run(cache: CachingAllocator, steps: list[tuple[str, int, int]]) -> list[Block]:
    """Do the steps; return the blocks that are still held."""
    held: list[Block] = []
    for action, number, stream in steps:
        match action:
            case "malloc":
                try:
                    held.append(cache.malloc(number, stream))
                except DeviceOutOfMemoryError:
                    continue
            case "free" if held:
                cache.free(held.pop(number % len(held)))
            case "use" if held:
                cache.use_on_stream(held[number % len(held)], stream)
            case "empty":
                cache.empty_cache()
            case "synchronize":
                cache.synchronize()
            case "begin" if not cache.captures:
                cache.begin_pool(1)
            case "end":
                cache.end_pool(1)
    return held


def every_block(cache: CachingAllocator) -> list[Block]:
    """Return all blocks, found by walking from those in the books to their neighbours."""
    books = cache.books
    pools = [books.small, books.large, *(h for p in books.private.values() for h in (p.small, p.large))]
    todo = [*books.active.values(), *(b for pool in pools for b in pool.blocks.values())]
    found: dict[int, Block] = {}
    while todo:
        block = todo.pop()
        if id(block) not in found:
            found[id(block)] = block
            todo += [n for n in (block.previous, block.next) if n is not None]
    return sorted(found.values(), key=lambda b: b.address)


@settings(max_examples=150, deadline=None)
@given(text=CONFIGS, steps=STEPS, timing=st.sampled_from(list(EventTiming)))
def test_counters_equal_the_blocks(text: str, steps: list[tuple[str, int, int]], timing: EventTiming) -> None:
    """Every counter equals what the blocks add up to; blocks do not overlap; the device gave what is reserved."""
    cache = CachingAllocator(parse_config(text), DeviceMemory(DEVICE), timing=timing)
    held = run(cache, steps)
    blocks = [b for b in every_block(cache) if b.mapped]
    counters = cache.counters.all
    free = [b for b in blocks if not b.allocated and id(b) not in {id(a) for a in cache.books.active.values()}]
    expected = {
        "allocation": len(held),
        "allocated_bytes": sum(b.size for b in blocks if b.allocated),
        "active_bytes": sum(b.size for b in blocks) - sum(b.size for b in free),
        "reserved_bytes": sum(b.size for b in blocks),
        "requested_bytes": sum(b.requested for b in cache.books.active.values()),
        "inactive_split": sum(b.split and b.expandable is None for b in free),
        "inactive_split_bytes": sum(b.size for b in free if b.split and b.expandable is None),
        "segment": sum(b.previous is None and b.expandable is None for b in blocks),
    }
    assert expected == {name: getattr(counters, name).current for name in expected}
    assert all(a.address + a.size <= b.address for a, b in pairwise(blocks))
    assert DEVICE - cache.device.free_bytes == counters.reserved_bytes.current
    for name in expected:
        small, large = (getattr(getattr(cache.counters, pool), name) for pool in ("small_pool", "large_pool"))
        assert getattr(counters, name).current == small.current + large.current
        assert getattr(counters, name).current <= getattr(counters, name).peak


@settings(max_examples=100, deadline=None)
@given(text=CONFIGS, steps=STEPS, timing=st.sampled_from(list(EventTiming)))
def test_allocated_active_reserved(text: str, steps: list[tuple[str, int, int]], timing: EventTiming) -> None:
    """Requested <= allocated <= active <= reserved, now and at the peaks; no free block has a free neighbour."""
    cache = CachingAllocator(parse_config(text), DeviceMemory(DEVICE), timing=timing)
    run(cache, steps)
    all_ = cache.counters.all
    for field in ("current", "peak"):
        order = [getattr(c, field) for c in (all_.allocated_bytes, all_.active_bytes, all_.reserved_bytes)]
        assert sorted(order) == order
    assert all_.requested_bytes.current <= all_.active_bytes.current
    for block in every_block(cache):
        follower = block.next
        if follower is not None and block.idle and follower.idle:
            assert block.mapped != follower.mapped


@settings(max_examples=100, deadline=None)
@given(text=CONFIGS, steps=STEPS, timing=st.sampled_from(list(EventTiming)))
def test_nothing_is_left_when_all_is_freed(text: str, steps: list[tuple[str, int, int]], timing: EventTiming) -> None:
    """Freeing everything, releasing private pools and emptying the cache returns every byte."""
    cache = CachingAllocator(parse_config(text), DeviceMemory(DEVICE), timing=timing)
    for block in run(cache, steps):
        cache.free(block)
    cache.end_pool(1)
    if 1 in cache.books.private:
        while cache.books.private[1].users:
            cache.release_pool(1)
    cache.empty_cache()
    assert DEVICE == cache.device.free_bytes
    counters = cache.counters.all
    assert {0} == {getattr(counters, name).current for name in counters.__slots__}


@settings(max_examples=50, deadline=None)
@given(text=CONFIGS, steps=STEPS)
def test_the_same_again(text: str, steps: list[tuple[str, int, int]]) -> None:
    """The same steps give the same addresses and counters."""
    runs = []
    for _ in range(2):
        cache = CachingAllocator(parse_config(text), DeviceMemory(DEVICE))
        held = run(cache, steps)
        runs.append(([b.address for b in held], cache.counters.as_memory_stats(0)))
    assert runs[0] == runs[1]


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_waiting_longer_costs_no_less(steps: list[tuple[str, int, int]]) -> None:
    """Where no cross-stream use happens, the two bounds are one."""
    alone = [s for s in steps if s[0] != "use"]
    peaks = set()
    for timing in EventTiming:
        cache = CachingAllocator(device=DeviceMemory(DEVICE), timing=timing)
        run(cache, alone)
        peaks.add(cache.counters.all.reserved_bytes.peak)
    assert 1 == len(peaks)
