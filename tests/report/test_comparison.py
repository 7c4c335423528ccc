"""Reports of logs and of what servers carry, from figures made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from logs.public_logs import QWEN3_4B_AWQ
from vramfit.capacity import Capacity, Lengths, Pair, PlanChoice, RequestsAtOnce, Share, SmallestFraction
from vramfit.comparison import Advice, Comparison, Part, Turn
from vramfit.log_facts import LogFacts, OutOfMemory
from vramfit.logs.read import read_log
from vramfit.report import capacity, comparison
from vramfit.report.layout import render
from vramfit.request import Inference, Plan, Request
from vramfit.result import Quantity, Verdict
from vramfit.units import GIB, MIB


def part(quantity: Quantity, measured: float, predicted: float, band: float) -> Part:
    """Return one figure with a band of so much to both sides."""
    low, high = predicted - band, predicted + band
    return Part(
        quantity=quantity, scope="device", measured=measured, predicted=predicted, low=low, high=high,
        inside=low <= measured <= high,
    )  # fmt: skip


COMPARED = Comparison(
    facts=read_log(QWEN3_4B_AWQ.lines.encode()),
    request=Request(model="Qwen/Qwen3-4B", workload=Inference(engine="vllm")),
    parts=(
        part(Quantity.WEIGHTS, 2.5 * GIB, 2.51 * GIB, 20 * MIB),
        part(Quantity.ACTIVATION_PEAK, 0.57 * GIB, 0.55 * GIB, 50 * MIB),
        part(Quantity.KV_CACHE, 36.88 * GIB, 35.98 * GIB, 600 * MIB),
        part(Quantity.KV_CACHE_TOKENS, 268560, 262000, 4000),
        part(Quantity.REQUESTS_AT_CONTEXT, 131.13, 127.93, 2),
    ),
    explanations=(
        Advice(turns=(Turn(flag="--max-num-seqs", seen="the default, not stated in the log", wanted="64"),),
               why="then kv cache would be 36.75 GiB, printed 36.88 GiB"),
    ),
    ways_out=(),
    not_predicted=("non_torch: engine vllm is not predicted to print it",),
    assumptions=("the log does not name its version: the newest known is taken (--engine-version)",),
)  # fmt: skip
FAILED = Comparison(
    facts=LogFacts(
        program="torch",
        given=(),
        measured=(),
        device_total_bytes=int(11.53 * GIB),
        failure=OutOfMemory(
            what="one allocation of torch", needed_bytes=224 * MIB, free_bytes=187 * MIB,
            total_bytes=int(11.53 * GIB), allocated_bytes=int(10.9 * GIB), fragmented_bytes=290 * MIB,
        ),
    ),
    request=None,
    parts=(),
    explanations=(),
    ways_out=(
        Advice(turns=(Turn(flag="PYTORCH_CUDA_ALLOC_CONF", seen="the default", wanted="expandable_segments:True"),),
               why="290.00 MiB lie reserved and unused, more than the 224.00 MiB that failed"),
    ),
    not_predicted=(),
    assumptions=("the log names no model: add it with --model to get a prediction",),
)  # fmt: skip
CARRIED = Capacity(
    requests=RequestsAtOnce(
        lengths=Lengths(median_tokens=2000, p95_tokens=9000, shared_prefix_tokens=1000), expected=651, safe=640,
        copies=2, devices=8, bounded_by="memory", pool_bytes=54 * GIB, mean_bytes=78 * MIB, deviation_bytes=105 * MIB,
        prefix_bytes=39 * MIB, formula="prefix + n x mean + 1.645 x sqrt(n) x deviation <= pool",
    ),
    fraction=SmallestFraction(requests=100, fraction=0.611, needed_bytes=31 * GIB, formula="smallest f with pool(f)"),
    plans=(
        PlanChoice(plan=Plan(tp=8), verdict=Verdict.FITS, margin_bytes=52 * GIB, requests=173),
        PlanChoice(plan=Plan(dp_replicate=8), verdict=Verdict.DOES_NOT_FIT, margin_bytes=-64 * GIB, requests=0),
    ),
    pair=Pair(
        fits=True,
        shares=(
            Share(model="first", order=1, fraction=0.26, takes_bytes=21 * GIB, free_before_bytes=79 * GIB),
            Share(model="second", order=2, fraction=0.251, takes_bytes=20 * GIB, free_before_bytes=58 * GIB),
        ),
        left_bytes=38 * GIB,
        formula="21 + 20 of 79 GiB",
    ),
)  # fmt: skip


def test_the_report_of_a_log_is_what_was_reviewed(golden: Callable[[str, str], None]) -> None:
    """Headline, figures side by side, explanation, what was read, what it rests on; and a failure with its way out."""
    text = render(comparison.sections(COMPARED), 100, ascii_only=True)
    text += "\n" + render(comparison.sections(FAILED), 100, ascii_only=True)
    golden("report-compare.txt", text)


def test_the_report_of_what_a_server_carries_is_what_was_reviewed(golden: Callable[[str, str], None]) -> None:
    """Requests, fraction, plans and two models; users per device are requests x copies over devices."""
    assert CARRIED.requests is not None
    assert 651 * 2 / 8 == CARRIED.requests.users_per_device
    golden("report-capacity.txt", render(capacity.sections(CARRIED), 100, ascii_only=True))


def test_the_worst_part_is_the_furthest_in_bytes() -> None:
    """0.9 GiB of the pool outweigh more per cent of a smaller figure; counts decide when only they miss their band."""
    assert COMPARED.worst is not None
    assert Quantity.KV_CACHE is COMPARED.worst.quantity
    weights, tokens = COMPARED.parts[0], COMPARED.parts[3]
    counted = replace(COMPARED, parts=(weights, tokens)).worst
    assert counted is not None
    assert Quantity.KV_CACHE_TOKENS is counted.quantity
    near = replace(COMPARED, parts=(weights, replace(tokens, inside=True))).worst
    assert near is not None
    assert Quantity.WEIGHTS is near.quantity
    assert FAILED.worst is None
