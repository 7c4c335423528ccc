"""Measured workloads are predicted by tracing them: from a line of JSON to an error of each figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vramfit.accuracy import validate
from vramfit.errors import InvalidValueError
from vramfit.measured_wire import load_runs
from vramfit.result import Quantity
from vramfit.trace.measuring import Card, Measuring, measured_run
from vramfit.trace_wire import trace_request_from_mapping
from vramfit.workload import ListedWorkload, Workload, said

WORKLOAD = Workload(builder="mlp", arguments={"width": 512, "depth": 2}, batch=16, steps=2, optimizer="sgd")
H200 = 150_121_545_728


def child_answer(workload: Workload) -> dict[str, Any]:
    """Return what the process that measures prints, where its GPU is one that is not there."""
    from vramfit.trace.measured_child import measure
    from vramfit.trace.virtual_gpu import VirtualGPU

    with VirtualGPU("h200-sxm-141gb"):
        return json.loads(json.dumps(measure({"workload": said(workload)})))  # type: ignore[no-any-return]


def line_of(tmp_path: Path) -> dict[str, Any]:
    """Return a measured run of the workload, as it is written down."""
    row = ListedWorkload(id="mlp", workload=WORKLOAD, order=1, needs_gib=1)
    card = Card(product="NVIDIA H200", total_bytes=H200)
    asked = Measuring(rows=(row,), card=card, device="h200-sxm-141gb", out=tmp_path / "m.jsonl", minutes=1)
    return measured_run(row, child_answer(WORKLOAD), asked)


def test_a_run_measured_on_the_virtual_gpu_is_predicted_to_the_byte(tmp_path: Path) -> None:
    """What is measured on a card that is not there, written, read and traced again, differs in no counter of torch."""
    path = tmp_path / "measured.jsonl"
    path.write_text(json.dumps(line_of(tmp_path)))
    found = validate(load_runs(path))
    errors = {row.quantity: row.error_ratio for row in found.rows}
    assert () == found.skipped
    assert (0, 0, 0) == tuple(
        errors[q] for q in (Quantity.REQUESTED_PEAK, Quantity.ALLOCATED_PEAK, Quantity.RESERVED_PEAK)
    )
    assert {"torch"} == {row.engine for row in found.rows}


def test_a_run_that_needed_more_counts_as_under_estimated(tmp_path: Path) -> None:
    """The error is predicted over measured, less one."""
    line = line_of(tmp_path)
    line["measured"] = [{**m, "bytes": 2 * m["bytes"]} for m in line["measured"] if m["quantity"] == "allocated_peak"]
    path = tmp_path / "measured.jsonl"
    path.write_text(json.dumps(line))
    (row,) = validate(load_runs(path)).rows
    assert (-0.5, False) == (row.error_ratio, row.inside)


def test_what_cannot_be_traced_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """No card, an unknown builder: a reason, not an error."""
    line = line_of(tmp_path)
    nowhere = {**line, "id": "nowhere", "request": {k: v for k, v in line["request"].items() if k != "device"}}
    other = {**line["request"], "workload": {**line["request"]["workload"], "builder": "mlpp"}}
    path = tmp_path / "measured.jsonl"
    path.write_text("\n".join(map(json.dumps, (nowhere, {**line, "id": "other", "request": other}))))
    found = validate(load_runs(path))
    reasons = {skipped.id: skipped.reason for skipped in found.skipped}
    assert "the name of the card" in reasons["nowhere"]
    assert "nearest: mlp" in reasons["other"]


def test_a_request_to_trace_reads_back() -> None:
    """What is written is what was asked."""
    request = trace_request_from_mapping({"workload": {"kind": "trace", **said(WORKLOAD)}, "device": "h200"})
    assert (WORKLOAD, "h200", None) == (request.workload, request.device, request.torch_version)


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        ({"builder": "mlp", "bach": 1}, "nearest: batch"),
        ({}, "the name of a builder"),
        ({"builder": "mlp", "batch": "8"}, "workload.batch"),
        ({"builder": "mlp", "arguments": 3}, "an object"),
        ({"builder": "mlp", "alloc_conf": 3}, "a text"),
        ({"builder": "mlp", "cudnn_benchmark": 1}, "true or false"),
        ({"builder": "mlp", "clip_norm": True}, "a number"),
    ],
)
def test_a_wrong_request_is_refused_with_its_path(workload: dict[str, object], expected: str) -> None:
    """The message names the field."""
    with pytest.raises(InvalidValueError, match=expected):
        trace_request_from_mapping({"workload": {"kind": "trace", **workload}})
