"""Logs beside their predictions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from logs.public_logs import DISTILL_14B, LLAMA_70B_W8A8, QWEN_7B_INT4
from vramfit.answer import answer
from vramfit.compare import compare, flag_of
from vramfit.errors import UnknownNameError
from vramfit.logs.read import read_log
from vramfit.report.comparison import sections
from vramfit.report.layout import render
from vramfit.report.startup_log import startup_log
from vramfit.request import Given, Inference, Plan, Request
from vramfit.result import Quantity
from vramfit.units import GIB


def given(**values: object) -> tuple[Given, ...]:
    """Return what a user would add by options; ``workload__`` and ``plan__`` are paths."""
    return tuple(Given(path=k.replace("__", "."), value=v, said="test") for k, v in values.items())


@pytest.mark.parametrize("tp", [1, 2])
def test_our_own_log_reads_back_without_a_difference(tp: int) -> None:
    """A log written from the readings, read back and predicted again, agrees to its last printed digit."""
    workload = Inference(engine="vllm", engine_version="0.19.0", context_tokens=8192, memory_fraction=0.9)
    asked = Request(model="llama-3.1-8b", workload=workload, plan=Plan(tp=tp), device="h100-sxm-80gb")
    log = "\n".join(startup_log(answer(asked)))
    found = compare(
        read_log(log.encode()),
        given(model="llama-3.1-8b", workload__engine_version="0.19.0", workload__memory_fraction=0.9,
              workload__context_tokens=8192, plan__tp=tp),
        device="h100-sxm-80gb",
    )  # fmt: skip
    assert {Quantity.WEIGHTS, Quantity.KV_CACHE, Quantity.KV_CACHE_TOKENS} <= {p.quantity for p in found.parts}
    for part in found.parts:
        assert abs(part.error_ratio) < 0.005, part
        assert part.inside, part
    assert () == found.explanations


def test_the_knob_that_differs_is_named() -> None:
    """A log of a run with a smaller fraction, which it does not state: the pool differs, the fraction explains it."""
    workload = Inference(engine="vllm", engine_version="0.19.0", context_tokens=8192, memory_fraction=0.6)
    asked = Request(model="llama-3.1-8b", workload=workload, device="h100-sxm-80gb")
    log = "\n".join(startup_log(answer(asked)))
    found = compare(
        read_log(log.encode()),
        given(model="llama-3.1-8b", workload__engine_version="0.19.0", workload__context_tokens=8192),
        device="h100-sxm-80gb",
    )
    assert found.worst is not None
    assert Quantity.KV_CACHE is found.worst.quantity
    assert "--gpu-memory-utilization 0.6" == str(found.explanations[0].turns[0])


def test_a_failed_start_gets_ways_out() -> None:
    """14B in bf16 on two 24 GB cards cannot hold 131,072 tokens: each change is said in the engine's flags and fits."""
    found = compare(
        read_log(DISTILL_14B.lines.encode()),
        given(model=DISTILL_14B.model, plan__tp=2, workload__memory_fraction=0.98),
        device="rtx-4090-24gb",
    )
    assert found.facts.failure is not None
    assert any("--kv-cache-dtype" == turn.flag for advice in found.ways_out for turn in advice.turns)
    assert any("parallel-size" in turn.flag for advice in found.ways_out for turn in advice.turns)


@pytest.mark.parametrize(
    ("log", "options"),
    [(LLAMA_70B_W8A8, {"workload__weight_format": "w8a8-int8"}), (QWEN_7B_INT4, {"workload__weight_format": "int4"})],
    ids=lambda v: getattr(v, "source", ""),
)
def test_weights_of_public_logs_are_met(log: object, options: dict[str, object]) -> None:
    """Within 1 % of what was printed: 67.72 GiB for 70B in w8a8, 5.20 GiB for 7B in four bits."""
    found = compare(read_log(log.lines.encode()), given(model=log.model, **options))  # type: ignore[attr-defined]
    weights = next(p for p in found.parts if p.quantity is Quantity.WEIGHTS)
    assert abs(weights.error_ratio) < 0.01


def test_without_a_model_the_message_itself_is_explained() -> None:
    """Torch kept more unused than it lacked: the allocator's setting is named, and the model asked for."""
    text = (
        "CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of 11.53 GiB of which 187.75 MiB "
        "is free. Of the allocated memory 10.90 GiB is allocated by PyTorch, and 290.00 MiB is reserved by PyTorch but "
        "unallocated."
    )
    found = compare(read_log(text.encode()), ())
    assert found.request is None
    assert "expandable_segments:True" == found.ways_out[0].turns[0].wanted
    assert "--model" in found.assumptions[0]
    fewer = compare(read_log(text.replace("290.00", "29.00").encode()), ())
    assert () == fewer.ways_out


def test_an_allocation_that_failed_is_set_beside_the_need() -> None:
    """Torch alone prints no figure that is predicted, so its total is compared: 21.50 held and 1.96 asked, of 23.64."""
    text = (
        "CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.20 GiB is "
        "free. Of the allocated memory 21.50 GiB is allocated by PyTorch, and 12.00 MiB is reserved by PyTorch but "
        "unallocated."
    )
    options = {"model": "qwen2.5-7b", "workload.engine": "transformers", "workload.context_tokens": 8192}
    for batch, more in ((1, True), (8, False)):
        found = compare(read_log(text.encode()), given(**options, **{"workload.batch": batch}))
        assert found.need is not None
        assert (found.need.high_bytes < 23.46 * GIB) is more
        report = render(sections(found), 200, ascii_only=True)
        assert "torch held and asked 23.46 GiB" in report
        assert ("more than this request needs" in report) is more
        assert any("--batch" == turn.flag for advice in found.ways_out for turn in advice.turns) is not more


def test_an_unknown_model_or_card_is_one_clear_error() -> None:
    """As everywhere else."""
    facts = read_log(LLAMA_70B_W8A8.lines.encode())
    with pytest.raises(UnknownNameError, match="device"):
        compare(facts, given(model="llama-3.1-70b"), device="h101")


def test_a_report_begins_with_what_differs_most() -> None:
    """The headline names the part; every printed figure has its row."""
    found = compare(read_log(LLAMA_70B_W8A8.lines.encode()), given(model="llama-3.1-70b"))
    text = render(sections(found), 100, ascii_only=True)
    assert text.startswith("Differs most: weights, predicted ")
    assert "printed 67.72 GiB" in text
    assert "What would explain it" in text
    assert "--quantization" in text or "--weights" in text
    replaced = replace(found, parts=(), explanations=())
    assert render(sections(replaced), 100).startswith("No printed figure that can be predicted")


def test_flags_are_the_engines_own() -> None:
    """A field without a flag of its engine keeps our name; a value decides between two flags."""
    assert "--dtype" == flag_of("vllm", "workload.weight_format", "fp32")
    assert "--quantization" == flag_of("vllm", "workload.weight_format", "fp8")
    assert "--context" == flag_of("generic", "workload.context_tokens")
