"""Inverses: they agree with the forward functions, at the boundary and one step past it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramfit.answer import answer
from vramfit.catalogue.device import all_devices, find_device
from vramfit.errors import ImpossiblePlanError, InvalidValueError, UnknownNameError
from vramfit.request import Inference, Plan, Request
from vramfit.result import Verdict
from vramfit.search import (
    COUNTS,
    Question,
    device_options,
    largest_batch,
    largest_fitting,
    longest_context,
    plans_for,
)
from vramfit.source import read_model

QUESTION = Question(
    model=read_model("meta-llama/Llama-3.1-8B"),
    workload=Inference(context_tokens=8192, batch=4),
    plan=Plan(),
    device=find_device("l4-24gb"),
)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 4), st.booleans())
def test_search_finds_the_boundary(boundary: int, most: int, start: int, power: int, step: bool) -> None:
    """The largest n up to most with room, whatever the curve and wherever it starts, in few steps."""
    asked: list[int] = []

    def room(n: int) -> int:
        asked.append(n)
        if step:
            return 1 if n <= boundary else -1
        return int(boundary**power - n**power)

    assert min(boundary, most) == largest_fitting(room, most, start)
    assert len(asked) <= 70


def test_one_more_sequence_would_not_fit() -> None:
    """The largest batch fits, the next one does not."""
    limit = largest_batch(QUESTION)
    assert limit.value >= 1
    for batch, verdict in ((limit.value, True), (limit.value + 1, False)):
        asked = replace(QUESTION, workload=Inference(context_tokens=8192, batch=batch))
        assert verdict == (asked.fit().verdict is Verdict.FITS)


def test_one_more_token_would_not_fit() -> None:
    """The longest context fits, one token more does not."""
    limit = longest_context(QUESTION)
    assert "memory" == limit.bounded_by
    for context, verdict in ((limit.value, True), (limit.value + 1, False)):
        asked = replace(QUESTION, workload=Inference(context_tokens=context, batch=4))
        assert verdict == (asked.fit().verdict is Verdict.FITS)


def test_context_stops_at_what_the_model_was_made_for() -> None:
    """On a large card the model's limit comes first: 131,072."""
    limit = longest_context(replace(QUESTION, device=find_device("h200-sxm-141gb"), workload=Inference(batch=1)))
    assert (131_072, "max_position_embeddings") == (limit.value, limit.bounded_by)


def test_fewest_devices_fit_and_one_less_does_not() -> None:
    """70B in bf16 with 4 x 8,192 tokens: 141 GB of weights and 10.7 GB of cache want more than one 80 GB card."""
    model = read_model("meta-llama/Llama-3.1-70B-Instruct")
    plans, device = plans_for(model, QUESTION.workload), find_device("a100-sxm-80gb")
    option = plans.fewest(device, 0, COUNTS)
    assert Verdict.FITS is option.verdict
    less = plans.best(option.count - 1, device, 0)
    assert less is None or less[1].verdict is not Verdict.FITS


def test_options_start_with_the_named_kind_and_then_grow() -> None:
    """The named device first; the rest by count."""
    named, *others = device_options(QUESTION, all_devices())
    assert "l4-24gb" == named.device
    assert sorted(o.count for o in others) == [o.count for o in others]


def test_changes_hold_what_they_promise() -> None:
    """Each change's flags, put into the request, give the verdict it announces."""
    asked = Request(
        model="meta-llama/Llama-3.1-70B-Instruct",
        workload=Inference(context_tokens=8192, batch=4),
        device="a100-sxm-80gb",
    )
    given_answer = answer(asked)
    assert Verdict.DOES_NOT_FIT is given_answer.fit.verdict
    by_flags = {c.flags: c for c in given_answer.changes}
    again = answer(replace(asked, workload=replace(asked.workload, weight_format="int4")))
    assert by_flags["--weights int4"].verdict is again.fit.verdict is Verdict.FITS
    assert by_flags["--weights int4"].margin_bytes == again.fit.margin_bytes
    assert given_answer.changes[0].verdict is Verdict.FITS
    fitting = [c.saves_bytes for c in given_answer.changes if c.verdict is Verdict.FITS]
    assert sorted(fitting) == fitting


def test_headroom_is_taken_from_the_margin() -> None:
    """2 GiB of headroom leave 2 GiB less, and nothing else moves."""
    plain, careful = QUESTION.fit(), replace(QUESTION, headroom_bytes=2**31).fit()
    assert 2**31 == plain.margin_bytes - careful.margin_bytes


def test_device_count_alone_chooses_the_plan() -> None:
    """Two cards and no degrees: the plan with the largest margin, named among the choices."""
    asked = Request(
        model="meta-llama/Llama-3.1-70B-Instruct",
        workload=Inference(context_tokens=8192),
        device="h100-sxm-80gb",
        device_count=4,
    )
    assert any("plan" == c.field for c in answer(asked).estimate.choices)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (
            Request(model="llama-3.1-8b", workload=Inference(), plan=Plan(tp=2), device_count=3),
            ImpossiblePlanError,
            "expected 2",
        ),
        (Request(model="llama-3.1-8b", workload=Inference(), device_count=2), InvalidValueError, "device_count"),
        (Request(model="llama-3.1-8b", workload=Inference(), device="a101"), UnknownNameError, "nearest"),
        (
            Request(model="llama-3.1-8b", workload=Inference(), device_memory_bytes=0),
            InvalidValueError,
            "device_memory_bytes",
        ),
        (Request(model="llama-3.1-9b", workload=Inference()), UnknownNameError, "nearest"),
        (Request(workload=Inference()), InvalidValueError, "model"),
    ],
)
def test_impossible_requests_are_refused(request_: Request, error: type[Exception], message: str) -> None:
    """One clear error each."""
    with pytest.raises(error, match=message):
        answer(request_)


def test_a_card_described_by_its_memory_alone_is_judged() -> None:
    """device_memory_bytes without a name: 24 GiB hold the 8B model, 8 GiB do not."""
    for size, verdict in ((24 * 2**30, Verdict.FITS), (8 * 2**30, Verdict.DOES_NOT_FIT)):
        asked = Request(model="llama-3.1-8b", workload=Inference(context_tokens=4096), device_memory_bytes=size)
        assert verdict is answer(asked).fit.verdict


def test_without_a_device_the_verdict_is_unknown() -> None:
    """No card, no verdict; the breakdown is there all the same."""
    given_answer = answer(Request(model="llama-3.1-8b", workload=Inference()))
    assert Verdict.UNKNOWN is given_answer.fit.verdict
    assert given_answer.estimate.worst.peak().expected_bytes > 16_060_522_496
