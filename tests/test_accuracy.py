"""Measured runs: what a line means, what is compared with what, and how errors are summed up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vramfit.accuracy import rule_of_thumb, training_rule_of_thumb, validate
from vramfit.answer import forward
from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.measured import MeasuredRun
from vramfit.measured_wire import accuracy_to_json, load_runs
from vramfit.request import Request
from vramfit.result import Quantity
from vramfit.training import TrainingRequest

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
WEIGHTS = 16_060_522_496
"""8,030,261,248 parameters of 2 B."""


def line(measured: list[dict[str, Any]], *, device: str | None = "h100-sxm-80gb", **more: object) -> dict[str, Any]:
    """Return a run of transformers with the model in 16 bit."""
    workload = {"kind": "serve", "engine": "transformers", "prompt_tokens": 100, "new_tokens": 1}
    request = {"model": MODEL, "workload": workload, "device": device}
    return {
        "schema": 1,
        "id": "a",
        "request": request,
        "measured": measured,
        "source": "me",
        "evidence": "table",
        **more,
    }


def runs(tmp_path: Path, *lines: dict[str, Any]) -> tuple[MeasuredRun, ...]:
    """Write lines to a file and read it."""
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return load_runs(path)


def test_a_figure_is_compared_with_the_reading_of_its_quantity(tmp_path: Path) -> None:
    """Ten per cent below what was measured: an error of -1/11, an under-estimate, outside the band."""
    found = validate(runs(tmp_path, line([{"quantity": "weights", "bytes": WEIGHTS * 11 // 10}])))
    (row,) = found.rows
    assert (WEIGHTS, Quantity.WEIGHTS, False) == (row.predicted, row.quantity, row.inside)
    assert -1 / 11 == pytest.approx(row.error_ratio)
    (summary,) = found.summary
    assert (1, 1.0, 0.0, "a") == (
        summary.n, summary.under_estimate_ratio, summary.inside_band_ratio, summary.worst_id,
    )  # fmt: skip


def test_what_was_printed_coarsely_lies_inside_by_half_a_step(tmp_path: Path) -> None:
    """A figure printed in steps of 0.01 GiB may be half a step away from the truth."""
    step = 2**30 // 100
    near = {"quantity": "weights", "bytes": WEIGHTS + step // 3, "resolution_bytes": step}
    far = {"quantity": "weights", "bytes": WEIGHTS + step, "resolution_bytes": step}
    assert [True, False] == [row.inside for row in validate(runs(tmp_path, line([near, far]))).rows]


def test_the_sum_is_over_all_ranks(tmp_path: Path) -> None:
    """Two ranks hold a half each, and the norms twice: 65 vectors of 4,096 in 16 bit more."""
    values = line([{"quantity": "weights", "bytes": WEIGHTS, "scope": "sum"}])
    values["request"]["plan"] = {"tp": 2}
    (row,) = validate(runs(tmp_path, values)).rows
    assert WEIGHTS + 65 * 4096 * 2 == row.predicted


def test_an_unknown_card_leaves_what_does_not_depend_on_it(tmp_path: Path) -> None:
    """Weights are the same on any card; the reading of a name that means several is not refused."""
    found = validate(runs(tmp_path, line([{"quantity": "weights", "bytes": WEIGHTS}], device="RTX-3060")))
    assert [0.0] == [row.error_ratio for row in found.rows]


def test_what_cannot_be_predicted_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """A quantity that the engine does not print, and a model that nobody can read."""
    unknown = line([{"quantity": "weights", "bytes": 1}], id="b")
    unknown["request"]["config"] = {"model_type": "nobody"}
    found = validate(runs(tmp_path, line([{"quantity": "kv_buffer", "bytes": 1}]), unknown))
    assert () == found.rows
    assert ["a", "b"] == [skipped.id for skipped in found.skipped]
    assert "kv_buffer: engine transformers is not predicted to print it" in found.skipped[0].reason
    assert "'nobody' is not understood" in found.skipped[1].reason


def test_rules_of_thumb_are_those_that_people_quote(tmp_path: Path) -> None:
    """Two bytes a parameter for weights, 20 % on top for a peak, nothing for a state."""
    (run,) = runs(tmp_path, line([{"quantity": "weights", "bytes": WEIGHTS}]))
    assert isinstance(run.request, Request)
    estimate = forward(run.request)
    assert WEIGHTS == rule_of_thumb(run.request, estimate, Quantity.WEIGHTS)
    assert WEIGHTS * 1.2 == pytest.approx(rule_of_thumb(run.request, estimate, Quantity.ALLOCATED_PEAK))
    assert rule_of_thumb(run.request, estimate, Quantity.RECURRENT_STATE) is None


def training(measured: list[dict[str, Any]], workload: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a training run of the model on eight devices."""
    values = line(measured, **more)
    values["request"] = {
        "model": MODEL,
        "workload": {"kind": "train", "sequence_tokens": 2048, **workload},
        "plan": {"dp_shard": 8},
    }
    return values


def test_training_runs_are_predicted_and_summed_up_by_themselves(tmp_path: Path) -> None:
    """Four per cent too little is no under-estimate of training, six per cent are; what is open stands in the row."""
    workload = {"framework": "torchtitan", "precision": "bf16-mixed"}
    (right,) = validate(runs(tmp_path, training([{"quantity": "loaded", "bytes": 1}], workload))).rows
    measured = [
        {"quantity": "loaded", "bytes": int(right.predicted / share)} for share in (0.96, 0.94)
    ]  # fmt: skip
    found = validate(runs(tmp_path, training(measured, workload, incomplete=["counter not stated"])))
    assert [-0.04, -0.06] == [pytest.approx(row.error_ratio, abs=1e-6) for row in found.rows]
    assert [("counter not stated",)] * 2 == [row.incomplete for row in found.rows]
    (summary,) = found.summary
    assert ("torchtitan", True, 0.5) == (summary.engine_or_framework, summary.trains, summary.under_estimate_ratio)


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        ({"method": "full", "precision": "bf16-mixed"}, WEIGHTS / 2 * 16 / 8),
        ({"method": "full", "precision": "bf16"}, WEIGHTS / 2 * 8 / 8),
        ({"method": "qlora", "precision": "bf16-mixed"}, (WEIGHTS / 2 * 0.5 + WEIGHTS // 2 // 400 * 16) / 8),
        ({"method": "lora", "precision": "bf16"}, (WEIGHTS + WEIGHTS // 2 // 400 * 16) / 8),
    ],
)
def test_the_rule_of_thumb_for_training_is_what_rough_says(
    tmp_path: Path, workload: dict[str, Any], expected: float
) -> None:
    """Four times fp32 weights for mixed precision, four times 16-bit ones for pure bf16, a base and 16 B an adapter."""
    if workload["method"] == "qlora":
        workload = {**workload, "base_format": "nf4-dq"}
    (run,) = runs(tmp_path, training([{"quantity": "reserved_peak", "bytes": 1}], workload))
    assert isinstance(run.request, TrainingRequest)
    rule = training_rule_of_thumb(run.request.workload, WEIGHTS // 2, 8, Quantity.RESERVED_PEAK)
    assert expected == pytest.approx(rule, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, r"line 1: schema: 2: expected 1"),
        ({"evidence": "hearsay"}, r"line 1: evidence"),
        ({"more": 1}, r"line 1.*more"),
        ({"measured": [{"quantity": "weight", "bytes": 1}]}, r"line 1: measured\[0\]\.quantity"),
        ({"measured": [{"quantity": "weights"}]}, r"measured\[0\]\.bytes: None: expected the measured weights"),
        ({"measured": [{"quantity": "kv_cache_tokens", "bytes": 3}]}, r"measured\[0\]\.value: None"),
        ({"measured": [{"quantity": "weights", "bytes": 0}]}, r"measured\[0\]\.weights: 0.*above 0"),
        ({"request": {"model": "m", "workload": {"kind": "serve", "batch": -1}}}, r"request\.workload\.batch: -1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """The file's line, the path in it, what was seen and what was expected."""
    with pytest.raises(InvalidValueError, match=message):
        runs(tmp_path, {**line([{"quantity": "weights", "bytes": 1}]), **change})


def test_a_file_without_runs_is_refused(tmp_path: Path) -> None:
    """Empty files and files that are not there."""
    (tmp_path / "empty.jsonl").write_text("\n\n", "utf-8")
    with pytest.raises(UnreadableFileError, match="no measured run"):
        load_runs(tmp_path / "empty.jsonl")
    with pytest.raises(UnreadableFileError):
        load_runs(tmp_path / "none.jsonl")


def test_a_run_of_training_is_read_with_its_plan(tmp_path: Path) -> None:
    """The same file form holds both kinds; what ran is the framework."""
    request = {
        "model": MODEL,
        "workload": {"kind": "train", "framework": "torchtitan", "micro_batch": 1, "adapter": {"targets": ["q_proj"]}},
        "plan": {"dp_shard": 8, "layers_per_stage": [3, 5]},
    }
    (run,) = runs(tmp_path, line([{"quantity": "reserved_peak", "bytes": 5}], request=request))
    assert isinstance(run.request, TrainingRequest)
    assert ("torchtitan", 8, (3, 5)) == (run.runtime, run.request.plan.dp_shard, run.request.plan.layers_per_stage)


def test_json_has_the_fields_of_version_1(tmp_path: Path) -> None:
    """Rows, summary and skipped, with the names that other programs read."""
    found = json.loads(accuracy_to_json(validate(runs(tmp_path, line([{"quantity": "weights", "bytes": WEIGHTS}])))))
    assert {"rows", "summary", "skipped"} == set(found)
    assert {"id", "quantity", "measured", "predicted", "error_ratio", "low", "high"} == set(found["rows"][0])
    wanted = {
        "engine_or_framework", "quantity", "n", "median_abs_error_ratio", "p90_abs_error_ratio", "worst_id",
        "worst_error_ratio", "under_estimate_ratio", "inside_band_ratio",
    }  # fmt: skip
    assert wanted <= set(found["summary"][0])
