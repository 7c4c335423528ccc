"""Laws of every server: needs grow, bounds stay in order, a pool and what stands beside it fit on the card."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from served import H100, LLAMA_8B, rank
from vramfit.catalogue.model import all_models
from vramfit.engines.profile import find_engine
from vramfit.errors import ImpossiblePlanError, UnsupportedModelError
from vramfit.fit import fit
from vramfit.request import Inference, Plan
from vramfit.result import COUNTED, Breakdown, Quantity

NAMES = st.sampled_from(sorted(row.name for row in all_models() if "model_type" in row.config))
SERVERS = st.sampled_from(
    [(e, p.version) for e in ("sglang", "tgi", "lmdeploy", "tensorrt-llm") for p in find_engine(e).profiles]
)
PLANS = st.sampled_from([Plan(), Plan(tp=2), Plan(tp=8), Plan(pp=2)])


def answer(name: str, server: tuple[str, str], plan: Plan, tokens: int, batch: int) -> Breakdown | None:
    """Return the first rank, or None where the model cannot be cut or served so."""
    work = Inference(engine=server[0], engine_version=server[1], context_tokens=tokens, batch=batch)
    try:
        return rank(name, work, plan)
    except (ImpossiblePlanError, UnsupportedModelError):
        return None


@settings(deadline=None, max_examples=60)
@given(NAMES, SERVERS, PLANS, st.integers(2, 120_000), st.integers(1, 64))
def test_more_tokens_or_sequences_never_need_less(
    name: str, server: tuple[str, str], plan: Plan, tokens: int, batch: int
) -> None:
    """All three bounds of the need grow with the context and with the sequences asked for."""
    here = answer(name, server, plan, tokens, batch)
    for more in (answer(name, server, plan, tokens + 1, batch), answer(name, server, plan, tokens, batch + 1)):
        if here is not None and more is not None:
            a, b = here.peak(), more.peak()
            assert a.low_bytes <= b.low_bytes
            assert a.expected_bytes <= b.expected_bytes
            assert a.high_bytes <= b.high_bytes


@settings(deadline=None, max_examples=60)
@given(NAMES, SERVERS, PLANS, st.integers(2, 120_000))
def test_bounds_stay_in_order_and_pools_on_the_card(
    name: str, server: tuple[str, str], plan: Plan, tokens: int
) -> None:
    """Low <= expected <= high of everything printed; no pool is negative, and with the weights it is on the card."""
    found = answer(name, server, plan, tokens, 1)
    if found is None:
        return
    printed = {r.quantity: r for r in found.readings}
    for reading in printed.values():
        assert 0 <= reading.low <= reading.value <= reading.high, reading.quantity
    bytes_of = {q: r.value for q, r in printed.items() if q not in COUNTED}
    cache = bytes_of.get(Quantity.KV_CACHE, 0)
    if cache and server != ("lmdeploy", "0.1"):  # a share of the total, whatever is free
        assert cache + bytes_of[Quantity.WEIGHTS] <= H100.total_bytes


@pytest.mark.parametrize(
    "server",
    [(e, p.version) for e in ("sglang", "tgi", "lmdeploy", "tensorrt-llm") for p in find_engine(e).profiles],
)
def test_as_many_sequences_fit_as_the_pool_holds(server: tuple[str, str]) -> None:
    """The verdict and the printed pool agree: so many sequences of 8,192 tokens, and one in twenty more does not."""
    pool = answer(LLAMA_8B, server, Plan(), 8192, 1)
    assert pool is not None
    held = int(next(r.value for r in pool.readings if r.quantity is Quantity.REQUESTS_AT_CONTEXT))
    for batch, fits in ((held, True), (held + held // 20 + 1, False)):
        found = answer(LLAMA_8B, server, Plan(), 8192, batch)
        assert found is not None
        assert fits is (fit((found,), H100).margin_bytes >= 0), batch
