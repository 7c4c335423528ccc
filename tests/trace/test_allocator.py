"""The simulated allocator does what PyTorch's does: sizes, pools, best fit, splitting, merging, streams, the limit."""

from __future__ import annotations

import pytest

from vramfit.logs.torch import failure
from vramfit.trace.allocator import CachingAllocator, rounded
from vramfit.trace.allocator_config import parse_config
from vramfit.trace.allocator_device import DeviceMemory, DeviceOutOfMemoryError, format_size
from vramfit.trace.allocator_events import EventTiming
from vramfit.units import GIB, MIB

EXPANDABLE = "expandable_segments:True"


def allocator(text: str = "", total: int = 80 * GIB, version: tuple[int, int] = (2, 15)) -> CachingAllocator:
    """Make an allocator on a device of ``total`` bytes."""
    return CachingAllocator(parse_config(text, version), DeviceMemory(total))


def sizes(cache: CachingAllocator) -> tuple[int, int]:
    """Return what is allocated and reserved."""
    return cache.counters.all.allocated_bytes.current, cache.counters.all.reserved_bytes.current


@pytest.mark.parametrize(
    ("requested", "allocated", "reserved"),
    [
        (4, 512, 2 * MIB),
        (MIB, MIB, 2 * MIB),  # still the small pool
        (MIB + 1, 1_049_088, 20 * MIB),  # the large pool begins one byte above
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),  # a segment of its own
        (11 * MIB, 12 * MIB, 12 * MIB),  # a rest of 1 MiB is not more than 1 MiB: it stays with the block
    ],
)
def test_first_request(requested: int, allocated: int, reserved: int) -> None:
    """The first request makes the segment that the table of sizes says."""
    cache = allocator()
    cache.malloc(requested)
    assert (allocated, reserved) == sizes(cache)


def test_pools_by_size() -> None:
    """Up to 1 MiB is counted in the small pool, one byte more in the large one."""
    cache = allocator()
    cache.malloc(MIB)
    cache.malloc(MIB + 1)
    small, large = cache.counters.small_pool, cache.counters.large_pool
    assert (MIB, 1_049_088) == (small.allocated_bytes.current, large.allocated_bytes.current)


def test_large_rest_below_one_mebibyte_stays_with_the_block() -> None:
    """A cached 20 MiB block serves 19.2 MiB whole: allocated counts 20 MiB, requested what was asked."""
    cache, asked = allocator(), 20_132_660  # 19.2 MiB
    cache.free(cache.malloc(20 * MIB))
    cache.malloc(asked)
    assert (20 * MIB, 20 * MIB) == sizes(cache)
    assert asked == cache.counters.all.requested_bytes.current


def test_expandable_segments_split_everything() -> None:
    """The same request from an expandable segment is split down to 512 bytes."""
    cache, asked = allocator(EXPANDABLE), 20_132_660
    cache.free(cache.malloc(20 * MIB))
    cache.malloc(asked)
    assert (-(-asked // 512) * 512, 20 * MIB) == sizes(cache)


def test_streams_share_no_cached_block() -> None:
    """A block freed on one stream does not serve another."""
    cache = allocator()
    cache.free(cache.malloc(20 * MIB, stream=0))
    cache.malloc(20 * MIB, stream=1)
    assert (20 * MIB, 40 * MIB) == sizes(cache)


def test_retry_releases_unsplit_segments() -> None:
    """At the limit the cache is emptied once, and the request succeeds: one retry, the old segments gone."""
    cache = allocator(total=100 * MIB)
    blocks = [cache.malloc(20 * MIB) for _ in range(5)]
    for block in blocks[:3]:
        cache.free(block)
    cache.malloc(60 * MIB)
    counters = cache.counters
    assert (1, 3, 0) == (counters.num_alloc_retries, counters.num_device_free, counters.num_ooms)
    assert (100 * MIB, 100 * MIB) == sizes(cache)


def test_out_of_memory_says_what_pytorch_says() -> None:
    """Beyond the device an error in PyTorch's words carries the numbers."""
    cache = CachingAllocator(device=DeviceMemory(100 * MIB, outside_bytes=10 * MIB))
    cache.malloc(50 * MIB)
    with pytest.raises(DeviceOutOfMemoryError) as caught:
        cache.malloc(60 * MIB)
    error = caught.value
    assert (60 * MIB, 40 * MIB, 60 * MIB) == (error.asked_bytes, error.free_bytes, error.process_bytes)
    assert "CUDA out of memory. Tried to allocate 60.00 MiB. GPU 0 has a total capacity of 100.00 MiB" in str(error)
    assert "50.00 MiB is allocated by PyTorch, and 0 bytes is reserved by PyTorch but unallocated" in str(error)
    assert (1, 1) == (cache.counters.num_ooms, cache.counters.num_alloc_retries)
    assert (50 * MIB, 50 * MIB) == sizes(cache)


def test_out_of_memory_is_read_like_a_real_one() -> None:
    """What reads torch's message from a log finds the same numbers in ours."""
    cache = CachingAllocator(device=DeviceMemory(10 * GIB, outside_bytes=GIB // 2))
    cache.malloc(4 * GIB)
    cache.free(cache.malloc(3 * MIB))
    with pytest.raises(DeviceOutOfMemoryError) as caught:
        cache.malloc(7 * GIB)
    read = failure((f"torch.OutOfMemoryError: {caught.value}",))
    assert read is not None
    assert (7 * GIB, 10 * GIB, 4 * GIB, 0) == (
        read.needed_bytes,
        read.total_bytes,
        read.allocated_bytes,
        read.fragmented_bytes,
    )
    assert (4.5 * GIB, 5.5 * GIB) == (read.process_bytes, read.free_bytes)


def test_split_segments_stay_when_the_cache_is_emptied() -> None:
    """A segment with one live block cannot go back; without it, everything does."""
    cache = allocator()
    kept, freed = cache.malloc(2 * MIB), cache.malloc(4 * MIB)
    cache.free(freed)
    cache.empty_cache()
    assert (2 * MIB, 20 * MIB) == sizes(cache)
    assert 18 * MIB == cache.counters.all.inactive_split_bytes.current
    cache.free(kept)
    cache.empty_cache()
    assert (0, 0) == sizes(cache)


def test_best_fit_is_the_smallest_then_the_lowest() -> None:
    """Of the cached blocks that are large enough the smallest serves, of equal ones the lowest address."""
    cache = allocator()
    blocks = [cache.malloc(size * MIB) for size in (40, 24, 24, 30)]
    for block in reversed(blocks):
        cache.free(block)
    assert blocks[1].address == cache.malloc(23 * MIB).address  # a rest of 1 MiB is not split off
    assert blocks[2].address == cache.malloc(24 * MIB).address


def test_freed_neighbours_become_one() -> None:
    """Three blocks of one segment freed in any order are one block again."""
    cache = allocator()
    blocks = [cache.malloc(4 * MIB) for _ in range(3)]
    for place in (0, 2, 1):
        cache.free(blocks[place])
    assert 0 == cache.counters.all.inactive_split.current
    cache.malloc(20 * MIB)
    assert 20 * MIB == sizes(cache)[1]


def test_power_of_two_divisions() -> None:
    """1200 bytes with two divisions lie between 1024 and 2048: 1536; a power of two stays."""
    config = parse_config("roundup_power2_divisions:2")
    assert [1536, 2048, 512, 1024] == [rounded(n, config) for n in (1200, 1537, 100, 1024)]
    assert 5 * MIB == rounded(4 * MIB + 1, parse_config("roundup_power2_divisions:4"))


def test_division_rounds_only_above_its_own_blocks() -> None:
    """With four divisions 1200 bytes are below 4 x 512 and are rounded to 512s; 3000 are rounded to a quarter."""
    config = parse_config("roundup_power2_divisions:4")
    assert [1536, 3072, 3584] == [rounded(n, config) for n in (1200, 3000, 3073)]


def test_max_split_size_keeps_large_blocks_whole() -> None:
    """A small request does not break an oversize block, and a large one takes a block at most 20 MiB larger."""
    cache = allocator("max_split_size_mb:64")
    cache.free(cache.malloc(100 * MIB))
    cache.malloc(8 * MIB)
    assert 120 * MIB == sizes(cache)[1]
    cache.malloc(80 * MIB)  # 100 MiB are not below 80 + 20
    assert 200 * MIB == sizes(cache)[1]
    cache.malloc(81 * MIB)
    assert 200 * MIB == sizes(cache)[1]
    assert 2 == cache.counters.oversize_allocations.current


def test_max_non_split_rounding_widens_that() -> None:
    """With 40 MiB allowed, the 100 MiB block serves 80 MiB."""
    cache = allocator("max_split_size_mb:64,max_non_split_rounding_mb:40")
    cache.free(cache.malloc(100 * MIB))
    cache.malloc(80 * MIB)
    assert (100 * MIB, 100 * MIB) == sizes(cache)


def test_oversize_blocks_are_released_before_everything_else() -> None:
    """With max_split_size a failing request frees one oversize block that is large enough, without a retry."""
    cache = allocator("max_split_size_mb:32", total=200 * MIB)
    small, large = cache.malloc(20 * MIB), cache.malloc(150 * MIB)
    cache.free(large)
    cache.free(small)
    cache.malloc(100 * MIB)
    assert (0, 1) == (cache.counters.num_alloc_retries, cache.counters.num_device_free)
    assert 120 * MIB == sizes(cache)[1]


def test_memory_fraction_limits_what_is_reserved() -> None:
    """Half of the device is a limit like its end, and the message says so."""
    cache = allocator("per_process_memory_fraction:0.5", total=100 * MIB)
    cache.malloc(40 * MIB)
    with pytest.raises(DeviceOutOfMemoryError, match=r"50\.00 MiB allowed; "):
        cache.malloc(12 * MIB)


def test_old_blocks_are_collected_above_the_threshold() -> None:
    """Above threshold x allowed the cached segment that was not used for longest goes, the young one stays."""
    cache = allocator("garbage_collection_threshold:0.5,per_process_memory_fraction:1.0", total=100 * MIB)
    old, young = cache.malloc(30 * MIB), cache.malloc(28 * MIB)
    cache.free(old)
    for _ in range(4):
        cache.free(cache.malloc(MIB // 2))
    cache.free(young)
    for _ in range(3):
        cache.free(cache.malloc(28 * MIB))
    cache.malloc(32 * MIB)  # 58 MiB reserved, 50 allowed: the 30 MiB block is older than the average
    assert (0, 1) == (cache.counters.num_alloc_retries, cache.counters.num_device_free)
    assert 28 * MIB + 2 * MIB + 32 * MIB == sizes(cache)[1]


def test_large_segment_size() -> None:
    """Requests below 10 MiB come from segments of the size that was set."""
    cache = allocator("large_segment_size_mb:64")
    cache.malloc(5 * MIB)
    assert 64 * MIB == sizes(cache)[1]


def test_other_stream_holds_a_freed_block() -> None:
    """A block used on another stream stays active when freed, to the next allocation or synchronisation."""
    for timing, reserved in ((EventTiming.AT_ONCE, 20 * MIB), (EventTiming.AT_SYNCHRONIZE, 40 * MIB)):
        cache = CachingAllocator(timing=timing)
        block = cache.malloc(20 * MIB)
        cache.use_on_stream(block, 7)
        cache.free(block)
        counters = cache.counters.all
        assert (0, 20 * MIB) == (counters.allocated_bytes.current, counters.active_bytes.current)
        second = cache.malloc(20 * MIB)
        assert reserved == counters.reserved_bytes.current
        cache.synchronize(7)
        cache.free(second)
        cache.malloc(20 * MIB)
        assert reserved == counters.reserved_bytes.current


def test_own_stream_is_no_other() -> None:
    """record_stream with the block's own stream does nothing."""
    cache = CachingAllocator(timing=EventTiming.AT_SYNCHRONIZE)
    block = cache.malloc(20 * MIB, stream=3)
    cache.use_on_stream(block, 3)
    cache.free(block)
    assert 0 == cache.counters.all.active_bytes.current


def test_emptying_the_cache_waits_for_every_stream() -> None:
    """What waits for another stream is freed too."""
    cache = CachingAllocator(timing=EventTiming.AT_SYNCHRONIZE)
    block = cache.malloc(20 * MIB)
    cache.use_on_stream(block, 7)
    cache.free(block)
    cache.empty_cache()
    assert (0, 0) == sizes(cache)


def test_expandable_maps_whole_pages_only() -> None:
    """Requests map 20 MiB pages as they need them, and no segment is counted."""
    cache = allocator(EXPANDABLE)
    for expected in (40, 60, 100):  # 25 -> two pages; 50 in all -> three; 90 -> five
        cache.malloc({40: 25, 60: 25, 100: 40}[expected] * MIB)
        assert expected * MIB == sizes(cache)[1]
    assert 0 == cache.counters.all.segment.current


def test_expandable_small_pool_has_small_pages() -> None:
    """The small pool maps 2 MiB at a time."""
    cache = allocator(EXPANDABLE)
    for _ in range(3):
        cache.malloc(MIB)
    assert (3 * MIB, 4 * MIB) == sizes(cache)


def test_expandable_pages_are_unmapped_and_mapped_again() -> None:
    """Emptying the cache gives whole pages back and keeps a page that is partly in use; the hole is filled first."""
    cache = allocator(EXPANDABLE)
    first, second, third = (cache.malloc(30 * MIB) for _ in range(3))
    cache.free(second)  # 30 to 60 MiB: the page 40 to 60 is whole
    cache.empty_cache()
    assert (60 * MIB, 80 * MIB) == sizes(cache)
    again = cache.malloc(30 * MIB)
    assert first.address + 30 * MIB == again.address
    assert (90 * MIB, 100 * MIB) == sizes(cache)
    for block in (first, third, again):
        cache.free(block)
    cache.empty_cache()
    assert (0, 0) == sizes(cache)


def test_expandable_fails_at_the_limit() -> None:
    """A device that cannot map another page is full, though half a page is free."""
    cache = allocator(EXPANDABLE, total=50 * MIB)
    cache.malloc(30 * MIB)
    with pytest.raises(DeviceOutOfMemoryError):
        cache.malloc(11 * MIB)
    cache.malloc(10 * MIB)


def test_private_pool_costs_its_high_water_mark() -> None:
    """What a captured graph used stays apart: public requests do not get it before its pool is released."""
    cache = allocator()
    cache.begin_pool(1)
    cache.free(cache.malloc(40 * MIB))
    cache.free(cache.malloc(40 * MIB))
    cache.end_pool(1)
    cache.free(cache.malloc(40 * MIB))
    assert 80 * MIB == sizes(cache)[1]
    cache.empty_cache()
    assert 40 * MIB == sizes(cache)[1]
    cache.release_pool(1)
    cache.empty_cache()
    assert 0 == sizes(cache)[1]


def test_private_pool_takes_only_its_streams() -> None:
    """A capture on one stream leaves the requests of others to the public pools."""
    cache = allocator()
    cache.begin_pool(1, frozenset({5}))
    inside, outside = cache.malloc(MIB, stream=5), cache.malloc(MIB, stream=0)
    assert inside.pool.private is not None
    assert outside.pool.private is None


def test_capture_postpones_frees_across_streams() -> None:
    """A block used on two streams inside a capture is not reused before the capture ends."""
    cache = allocator()
    cache.begin_pool(1)
    block = cache.malloc(40 * MIB)
    cache.use_on_stream(block, 9)
    cache.free(block)
    cache.malloc(40 * MIB)
    assert 80 * MIB == sizes(cache)[1]
    cache.end_pool(1)
    cache.malloc(512)
    assert 40 * MIB == cache.counters.all.active_bytes.current - 512


def test_private_pools_are_not_expandable_in_torch_2_4() -> None:
    """The oldest version gives captures classic segments; later ones pages."""
    for version, segments in (((2, 4), 1), ((2, 6), 0)):
        cache = allocator(EXPANDABLE, version=version)
        cache.begin_pool(1)
        cache.malloc(40 * MIB)
        assert segments == cache.counters.all.segment.current


def test_statistics_have_pytorch_names() -> None:
    """The flat mapping carries the keys that torch.cuda.memory_stats has."""
    cache = allocator()
    cache.malloc(5)
    stats = cache.counters.as_memory_stats(cache.config.max_split_bytes)
    expected = {"allocated_bytes.all.peak": 512, "requested_bytes.small_pool.current": 5, "max_split_size": -1}
    assert expected == {key: stats[key] for key in expected}
    assert 9 * 3 * 4 + 2 * 4 + 5 + 1 == len(stats)


def test_sizes_are_printed_as_pytorch_prints_them() -> None:
    """A unit begins one byte above the previous."""
    assert ["1024 bytes", "1.00 KiB", "1.00 GiB"] == [format_size(n) for n in (1024, 1025, GIB + 1)]


def test_small_rest_of_one_block_is_split_off() -> None:
    """In the small pool a rest of exactly 512 bytes is a block of its own."""
    cache = allocator()
    first, _ = cache.malloc(1024), cache.malloc(512)
    cache.free(first)
    low, high = cache.malloc(512), cache.malloc(512)
    assert (first.address, first.address + 512) == (low.address, high.address)


def test_block_of_just_the_limit_is_not_split() -> None:
    """A block of max_split_size counts as too large to split."""
    cache = allocator("max_split_size_mb:64")
    cache.free(cache.malloc(64 * MIB))
    cache.malloc(8 * MIB)
    assert 84 * MIB == sizes(cache)[1]


def test_the_pool_begun_last_serves() -> None:
    """Of two private pools the inner one takes the request."""
    cache = allocator()
    cache.begin_pool(1)
    cache.begin_pool(2)
    assert cache.malloc(MIB).pool is cache.books.private[2].small
    cache.end_pool(2)
    assert cache.malloc(MIB).pool is cache.books.private[1].small


def test_memory_fraction_may_be_reached() -> None:
    """Reserving exactly what is allowed succeeds."""
    cache = allocator("per_process_memory_fraction:0.5", total=100 * MIB)
    cache.malloc(40 * MIB)
    cache.malloc(10 * MIB)
    assert (50 * MIB, 0) == (sizes(cache)[1], cache.counters.num_alloc_retries)


def test_blocks_of_one_age_are_collected_together() -> None:
    """A block of average age is old enough."""
    cache = allocator("garbage_collection_threshold:0.2,per_process_memory_fraction:1.0", total=200 * MIB)
    for block in [cache.malloc(20 * MIB) for _ in range(3)]:
        cache.free(block)
    cache.malloc(100 * MIB)
    assert (3, 100 * MIB) == (cache.counters.num_device_free, sizes(cache)[1])


def test_no_more_oversize_blocks_are_released_than_needed() -> None:
    """Where no single cached block suffices the largest go, one by one, until enough is free."""
    cache = allocator("max_split_size_mb:32", total=130 * MIB)
    for block in [cache.malloc(size * MIB) for size in (36, 38, 40)]:
        cache.free(block)
    cache.malloc(70 * MIB)
    assert (0, 2, 106 * MIB) == (
        cache.counters.num_alloc_retries,
        cache.counters.num_device_free,
        sizes(cache)[1],
    )


def test_uses_inside_a_capture_are_over_at_its_end() -> None:
    """A block that other streams used only while a graph was captured waits for nobody afterwards."""
    cache = CachingAllocator(timing=EventTiming.AT_SYNCHRONIZE)
    cache.begin_pool(1)
    block = cache.malloc(40 * MIB)
    cache.use_on_stream(block, 9)
    cache.free(block)
    cache.end_pool(1)
    cache.malloc(512)
    assert 512 == cache.counters.all.active_bytes.current
