"""The inverses for servers: each agrees with the forward answer on both sides of its limit."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest

from vramfit.capacity import Lengths
from vramfit.catalogue.device import find_device
from vramfit.errors import InvalidValueError
from vramfit.request import Inference, Plan
from vramfit.result import DeviceOption, Quantity, Verdict
from vramfit.search import Question, largest_batch, smallest_change
from vramfit.serving import (
    length_slices,
    one_request,
    ranked_plans,
    ranks_of,
    requests_at_once,
    smallest_fraction,
    two_models,
)
from vramfit.source import read_model

LLAMA = read_model("llama-3.1-8b")
H100 = find_device("h100-sxm-80gb")
VLLM = Question(
    model=LLAMA,
    workload=Inference(engine="vllm", engine_version="0.19.0", context_tokens=8192),
    plan=Plan(),
    device=H100,
)
GENERIC = replace(VLLM, workload=Inference(context_tokens=8192))


def pool(question: Question) -> int:
    """Return the cache that the engine would print, by the unfavourable end."""
    return min(int(r.low) for rank in ranks_of(question) for r in rank.readings if r.quantity is Quantity.KV_CACHE)


def test_one_request_of_llama_is_128_kib_per_token() -> None:
    """32 layers x 2 x 8 heads x 128 x 2 B = 131,072 B a token."""
    assert 2000 * 131_072 == one_request(GENERIC, 2000)
    assert 0 == one_request(GENERIC, 0)


def test_lengths_spread_between_median_and_percentile() -> None:
    """Of 20 equal shares the middle two straddle the median and the last lies beyond the 95th percentile."""
    found = length_slices(Lengths(median_tokens=1000, p95_tokens=4000))
    assert found == tuple(sorted(found))
    assert found[9] < 1000 < found[10]
    assert found[18] < 4000 < found[19]
    assert (700,) * 20 == length_slices(Lengths(median_tokens=700, p95_tokens=700))


def test_equal_requests_fill_the_pool() -> None:
    """Without spread n is the pool over one request, which is a hand count: 8,192 x 131,072 B = 1 GiB each."""
    found = requests_at_once(VLLM, Lengths(median_tokens=8192, p95_tokens=8192))
    assert 0 == found.deviation_bytes
    assert 2**30 <= found.mean_bytes <= 2**30 + 16 * 131_072  # at most a page of 16 tokens is begun and not full
    assert found.pool_bytes // found.mean_bytes == found.expected
    assert pool(VLLM) // found.mean_bytes == found.safe


def test_a_library_holds_as_many_as_its_largest_batch() -> None:
    """Where no pool is printed, equal requests by the high figures are search's largest batch."""
    found = requests_at_once(GENERIC, Lengths(median_tokens=8192, p95_tokens=8192))
    assert largest_batch(GENERIC).value == found.safe
    assert found.safe <= found.expected


def test_the_number_of_requests_meets_its_own_rule() -> None:
    """Prefix + n x mean + 1.645 x sqrt(n) x deviation stays within the pool for n and not for n + 1."""
    found = requests_at_once(VLLM, Lengths(median_tokens=2000, p95_tokens=9000, shared_prefix_tokens=500))

    def need(n: int) -> float:
        return found.prefix_bytes + n * found.mean_bytes + 1.6449 * sqrt(n) * found.deviation_bytes

    assert need(found.expected) <= found.pool_bytes < need(found.expected + 1)
    assert found.deviation_bytes > 0


def test_longer_tails_cost_and_shared_prefixes_save() -> None:
    """A longer percentile never admits more; a shared prefix never fewer; copies serve as many each."""
    narrow, wide = (requests_at_once(VLLM, Lengths(median_tokens=2000, p95_tokens=n)) for n in (2000, 9000))
    assert wide.expected < narrow.expected
    shared = requests_at_once(VLLM, Lengths(median_tokens=2000, p95_tokens=9000, shared_prefix_tokens=1500))
    assert wide.expected < shared.expected
    assert 1500 * 131_072 <= shared.prefix_bytes <= 1516 * 131_072
    doubled = requests_at_once(replace(VLLM, plan=Plan(dp_replicate=2)), Lengths(median_tokens=2000, p95_tokens=9000))
    assert (wide.expected, wide.users_per_device) == (doubled.expected, doubled.users_per_device)


def test_the_scheduler_bounds_short_requests() -> None:
    """Ten tokens each: thousands would fit, the scheduler runs as many as it may."""
    few = replace(VLLM, workload=replace(VLLM.workload, max_num_seqs=32))
    found = requests_at_once(few, Lengths(median_tokens=10, p95_tokens=10))
    assert (32, "max_num_seqs") == (found.expected, found.bounded_by)


@pytest.mark.parametrize("requests", [1, 10, 50])
def test_the_smallest_fraction_is_the_smallest(requests: int) -> None:
    """The pool at that fraction holds the requests, the pool at a thousandth less does not."""
    found = smallest_fraction(VLLM, requests)
    assert found.fraction is not None
    for fraction, enough in ((found.fraction, True), (found.fraction - 0.001, False)):
        asked = replace(VLLM, workload=replace(VLLM.workload, memory_fraction=fraction))
        assert enough is (pool(asked) >= found.needed_bytes)
    assert requests * 2**30 <= found.needed_bytes <= requests * (2**30 + 2**21)


def test_too_many_requests_have_no_fraction() -> None:
    """A hundred requests of 1 GiB each do not fit on 80 GB; a library has no fraction at all."""
    assert smallest_fraction(VLLM, 100).fraction is None
    with pytest.raises(InvalidValueError, match="takes a share"):
        smallest_fraction(GENERIC, 1)


def test_plans_are_ranked_by_what_they_carry() -> None:
    """Every plan makes up the devices, those that fit come first, and among them more requests first."""
    found = ranked_plans(replace(VLLM, model=read_model("llama-3.1-70b")), 8)
    assert {8} == {c.plan.num_devices for c in found}
    fits = [c.verdict is Verdict.FITS for c in found]
    assert fits == sorted(fits, reverse=True)
    carried = [c.requests for c in found if c.verdict is Verdict.FITS]
    assert carried == sorted(carried, reverse=True)
    assert 8 not in {c.plan.dp_replicate for c in found if c.verdict is Verdict.FITS}


def test_two_models_share_a_card() -> None:
    """The larger need starts first; what both take and what is left make up the card."""
    small = replace(VLLM, model=read_model("llama-3.2-1b"))
    found = two_models(small, VLLM, 4)
    assert found.fits
    assert (LLAMA.name, small.model.name) == tuple(share.model for share in found.shares)
    assert H100.capacity_bytes == sum(share.takes_bytes for share in found.shares) + found.left_bytes
    assert found.shares[0].takes_bytes >= found.shares[1].takes_bytes
    assert sum(share.fraction for share in found.shares) < 1


def test_two_models_that_do_not_fit_say_by_how_much() -> None:
    """Two models of 8B with 40 GiB of cache each are too much for 80 GB."""
    found = two_models(VLLM, VLLM, 40)
    assert not found.fits
    assert found.left_bytes < 0
    assert 1 == len(found.shares)


@pytest.mark.parametrize(
    ("values", "part"),
    [((2000, 1000, 0), "lengths.p95"), ((2000, 9000, 3000), "shared_prefix"), ((0, 1, 0), "lengths.p50")],
)
def test_lengths_that_contradict_are_refused(values: tuple[int, int, int], part: str) -> None:
    """The percentile below the median, the prefix beyond it, nothing at all."""
    median, p95, prefix = values
    with pytest.raises(InvalidValueError, match=part):
        Lengths(median_tokens=median, p95_tokens=p95, shared_prefix_tokens=prefix)


def test_a_larger_fraction_is_among_the_smallest_changes() -> None:
    """A server that is short by little on a small card is offered the fraction that is enough, and no smaller one."""
    l4 = find_device("l4")
    short = replace(VLLM, device=l4, workload=replace(VLLM.workload, memory_fraction=0.7))
    assert short.fit().verdict is Verdict.DOES_NOT_FIT
    changes = smallest_change(short, None, None, _no_option())
    flags = [c.flags for c in changes if c.flags.startswith("--fraction")]
    assert flags
    wanted = float(flags[0].split()[1])
    for fraction, fits in ((wanted, True), (wanted - 0.01, False)):
        asked = replace(short, workload=replace(short.workload, memory_fraction=round(fraction, 2)))
        assert fits is (asked.fit().verdict is Verdict.FITS)


def _no_option() -> DeviceOption:
    return DeviceOption(device="x", count=0, plan=Plan(), verdict=Verdict.DOES_NOT_FIT, margin_bytes=0)
