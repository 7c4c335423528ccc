"""The inverses for servers: requests of mixed lengths, the smallest fraction, plans ranked, two models on one card.

Like ``search``, all of them ask the forward functions again; there is no second formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import exp, isqrt, log
from statistics import NormalDist

from vramfit.capacity import Lengths, Pair, PlanChoice, RequestsAtOnce, Share, SmallestFraction
from vramfit.engines.profile import find_engine
from vramfit.errors import ImpossiblePlanError, InvalidValueError, VramfitError
from vramfit.estimate import breakdowns, count, readings
from vramfit.request import Plan
from vramfit.result import Breakdown, Quantity, Verdict
from vramfit.search import MOST_BATCH, MOST_TENSOR_RANKS, Question, largest_fitting
from vramfit.understand import understand

P95 = NormalDist().inv_cdf(0.95)
"""Deviations above the mean below which 95 % of cases lie: 1.645."""
SLICES = 20
"""Equal shares of requests into which the lengths are cut; the middle of each stands for it."""
CACHES = ("kv_cache/", "recurrent_state/")
STEPS = 1000
"""Fractions are searched in thousandths."""
OF_TOTAL = frozenset({"vllm"})
"""Engines whose fraction is one of the whole card; of all others it is one of what they find free.
Source: vllm-project/vllm:vllm/v1/worker/utils.py, request_memory (fraction x total; refuses when less is free)."""


def ranks_of(question: Question) -> tuple[Breakdown, ...]:
    """Return what each distinct rank holds, with what the engine would print."""
    counted = count(understand(question.model, question.workload, question.device), question.plan)
    return readings(counted, breakdowns(counted, question.device), question.device)


def _cache_bytes(rank: Breakdown) -> int:
    return sum(int(item.bytes) for item in rank.items if item.name.startswith(CACHES))


def one_request(question: Question, tokens: int) -> int:
    """Return what one sequence of so many tokens takes in caches and states on the fullest rank. [B]"""
    if tokens < 1:
        return 0
    workload = replace(question.workload, context_tokens=tokens, prompt_tokens=None, new_tokens=None, batch=1)
    return max(_cache_bytes(rank) for rank in ranks_of(replace(question, workload=workload)))


def length_slices(lengths: Lengths) -> tuple[int, ...]:
    """Return the lengths that stand for equal shares of the requests, log-normal between median and percentile.

        median * (p95 / median) ** (z / 1.645)        z: normal quantile of the middle of each share

    >>> length_slices(Lengths(median_tokens=1000, p95_tokens=1000))[0]
    1000
    """
    spread = log(lengths.p95_tokens / lengths.median_tokens) / P95
    middles = ((i + 0.5) / SLICES for i in range(SLICES))
    return tuple(round(lengths.median_tokens * exp(spread * NormalDist().inv_cdf(m))) for m in middles)


def requests_at_once(question: Question, lengths: Lengths) -> RequestsAtOnce:
    """Return how many requests of such lengths fit at once, in 95 of 100 draws.

        prefix + n * mean + 1.645 * sqrt(n) * deviation <= pool

    Each request is counted at its full length, and the shared prefix once.
    """
    prefix = one_request(question, lengths.shared_prefix_tokens)
    costs = [max(0, one_request(question, tokens) - prefix) for tokens in length_slices(lengths)]
    mean = max(1, sum(costs) // SLICES)
    deviation = isqrt(sum((cost - mean) ** 2 for cost in costs) // SLICES)

    def need(n: int) -> int:
        return prefix + n * mean + int(P95 * isqrt(n * deviation * deviation))

    seats = understand(question.model, question.workload, question.device).workload.max_num_seqs or MOST_BATCH

    def most(*, low: bool) -> int:
        return largest_fitting(lambda n: _pool(question, n, low=low) - need(n), seats, 8)

    expected = most(low=False)
    words = f"{prefix:,} + n x {mean:,} + 1.645 x sqrt(n) x {deviation:,} <= {_pool(question, 1, low=False):,} B"
    return RequestsAtOnce(
        lengths=lengths,
        expected=expected,
        safe=most(low=True),
        copies=question.plan.dp_replicate,
        devices=question.plan.num_devices,
        bounded_by="max_num_seqs" if expected == seats < MOST_BATCH else "memory",
        pool_bytes=_pool(question, max(1, expected), low=False),
        mean_bytes=mean,
        deviation_bytes=deviation,
        prefix_bytes=prefix,
        formula=words,
    )


def _pool(question: Question, requests: int, *, low: bool) -> int:
    """Return the cache of the rank that has least: what the engine prints, else what the rest leaves. [B]"""
    found = []
    for rank in ranks_of(replace(question, workload=replace(question.workload, batch=requests))):
        printed = [r for r in rank.readings if r.quantity is Quantity.KV_CACHE]
        if printed:
            found.append(int(printed[0].low if low else printed[0].value))
            continue
        peak = rank.peak()
        rest = (peak.high_bytes if low else peak.expected_bytes) - _cache_bytes(rank)
        found.append(question.device.capacity_bytes - question.headroom_bytes - rest)
    return min(found)


def smallest_fraction(question: Question, requests: int) -> SmallestFraction:
    """Return the least fraction with which the pool holds so many requests of the context asked for.

        smallest f in thousandths with pool(f) >= requests * cache of one

    Raises:
        InvalidValueError: an engine that takes no fraction.
    """
    engine = question.workload.engine
    if "memory_fraction" not in find_engine(engine).knobs:
        raise InvalidValueError("workload.engine", engine, "one that takes a share of the card, such as vllm")
    filled = understand(question.model, question.workload, question.device).workload
    one = one_request(question, filled.context_tokens)
    needed = requests * one
    words = f"smallest f in thousandths with pool(f) >= {requests:,} x {one:,} B"
    low, high = 0, STEPS + 1
    while high - low > 1:
        middle = (low + high) // 2
        asked = replace(question, workload=replace(question.workload, memory_fraction=middle / STEPS))
        enough = _pool(asked, 1, low=True) >= needed
        low, high = (low, middle) if enough else (middle, high)
    found = None if high > STEPS or not _starts(question, high / STEPS) else high / STEPS
    return SmallestFraction(requests=requests, fraction=found, needed_bytes=needed, formula=words)


def _starts(question: Question, fraction: float) -> bool:
    """Say whether the card itself still has room for what lies outside the fraction."""
    asked = replace(question, workload=replace(question.workload, memory_fraction=fraction))
    return all(_taken(rank) <= asked.device.capacity_bytes for rank in ranks_of(asked))


def _taken(rank: Breakdown) -> int:
    """Return what a rank holds of the card once it runs: its reservation and what lies outside it. [B]"""
    if rank.reservation is None:
        return int(rank.peak().high_bytes)
    outside = sum(int(i.bytes) for i in rank.items if i.name.startswith(rank.reservation.outside))
    return rank.reservation.limit_bytes + outside


def ranked_plans(question: Question, num_devices: int) -> tuple[PlanChoice, ...]:
    """Return every plan over so many devices, best first: those that fit, then most requests, then fewest stages."""
    found = []
    for plan in _plans(num_devices):
        try:
            found.append(_choice(replace(question, plan=plan)))
        except ImpossiblePlanError:
            continue
    order = {Verdict.FITS: 0, Verdict.TIGHT: 1}
    return tuple(sorted(found, key=lambda c: (order.get(c.verdict, 2), -c.requests, c.plan.pp, -c.margin_bytes)))


def _plans(num_devices: int) -> Iterator[Plan]:
    for tp, pp in product(range(1, min(MOST_TENSOR_RANKS, num_devices) + 1), range(1, num_devices + 1)):
        if num_devices % (tp * pp) == 0:
            yield Plan(tp=tp, pp=pp, dp_replicate=num_devices // (tp * pp))


def _choice(question: Question) -> PlanChoice:
    judged = question.fit()
    filled = understand(question.model, question.workload, question.device).workload
    one = one_request(question, filled.context_tokens)
    each = max(0, _pool(question, 1, low=True)) // one if one else 0
    seats = filled.max_num_seqs or MOST_BATCH
    return PlanChoice(
        plan=question.plan,
        verdict=judged.verdict,
        margin_bytes=judged.margin_bytes,
        requests=min(each, seats) * question.plan.dp_replicate,
    )


def two_models(first: Question, second: Question, requests: int) -> Pair:
    """Return in which order two models start on one card, and with which fraction each.

    The one that needs more starts first: it profiles itself while the card is empty. Each gets the smallest
    fraction for its requests; the second sees only what the first left.

        fraction of the whole card (vLLM), or of what is free at that moment (all others)

    Raises:
        InvalidValueError: an engine that takes no fraction.
    """
    alone = [(_least(question, requests), question) for question in (first, second)]
    alone.sort(key=lambda pair: -pair[0])
    shares: list[Share] = []
    free = first.device.capacity_bytes - first.headroom_bytes
    for order, (least, question) in enumerate(alone, start=1):
        share = _share(question, requests, order, free, least)
        if share is None:
            return Pair(fits=False, shares=tuple(shares), left_bytes=free - least, formula=_words(alone, requests))
        shares.append(share)
        free -= share.takes_bytes
    return Pair(fits=free >= 0, shares=tuple(shares), left_bytes=free, formula=_words(alone, requests))


def _least(question: Question, requests: int) -> int:
    """Return the least that a model can take of the card with so many requests: all it holds at its fraction. [B]"""
    found = smallest_fraction(question, requests)
    fraction = 1.0 if found.fraction is None else found.fraction
    asked = replace(question, workload=replace(question.workload, memory_fraction=fraction))
    return max(_taken(rank) for rank in ranks_of(asked))


def _share(question: Question, requests: int, order: int, free: int, least: int) -> Share | None:
    """Return what one of the two gets; None = it does not fit into what is free."""
    seen = question
    if question.workload.engine not in OF_TOTAL and order > 1:
        seen = replace(question, device=replace(question.device, total_bytes=max(1, free), usable_bytes=None))
    try:
        found = smallest_fraction(seen, requests)
    except VramfitError:
        return None
    if found.fraction is None or least > free:
        return None
    return Share(
        model=question.model.name, order=order, fraction=found.fraction, takes_bytes=least, free_before_bytes=free
    )


def _words(alone: list[tuple[int, Question]], requests: int) -> str:
    parts = " + ".join(f"{least:,}" for least, _ in alone)
    return f"{parts} B for {requests:,} requests each, of {alone[0][1].device.capacity_bytes:,} B"
