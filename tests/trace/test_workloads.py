"""Workloads as data: every row of the table is one program that runs."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

from vramfit.errors import InvalidValueError, UnreadableFileError
from vramfit.trace.measuring import Card, Measuring, environment, measured_run, why_not
from vramfit.trace.measuring import measure as measure_rows
from vramfit.trace.workload_table import load_workloads, read_workloads
from vramfit.workload import ListedWorkload, Workload, said

REPOSITORY = Path(__file__).resolve().parents[2]
TABLE = load_workloads(REPOSITORY / "validation" / "workloads.toml")
CARD = Card(product="NVIDIA H200", total_bytes=150_121_545_728)
DEAR = {"sd15", "resnet50-fp16"}
"""Beginnings of ids that take seconds even at tiny size."""


def test_table_has_what_it_must_cover() -> None:
    """At least 60 rows, each a program of its own, over every builder, task, precision and optimizer we have."""
    assert len(TABLE) >= 60
    programs = [json.dumps(said(row.workload), sort_keys=True) for row in TABLE]
    assert len(set(programs)) == len(programs)
    assert {"train", "infer", "generate"} == {row.workload.task for row in TABLE}
    assert {"fp32", "bf16", "bf16-mixed", "fp16-mixed"} == {row.workload.precision for row in TABLE}
    assert {"adamw", "sgd", "sgd-momentum", "adafactor", "adamw-8bit"} == {row.workload.optimizer for row in TABLE}
    assert {None, "fused", "for-loop"} <= {row.workload.optimizer_implementation for row in TABLE}
    assert sum("expandable" in row.workload.alloc_conf for row in TABLE) >= 3
    assert 3 <= sum(row.snapshot for row in TABLE) <= 8


@pytest.mark.parametrize("row", [r for r in TABLE if not r.id.startswith(tuple(DEAR))], ids=lambda r: r.id)
@pytest.mark.slow
def test_every_row_runs_on_the_cpu(row: ListedWorkload) -> None:
    """One step of each program at tiny size ends; what it needs beyond torch is named in its row."""
    from vramfit.trace.workloads import run_workload, tiny

    if any(find_spec(name) is None for name in row.packages):
        pytest.skip(f"{row.packages} not installed")
    marks: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries deprecate is theirs
        run_workload(tiny(row.workload), "cpu", marks.append)
    assert ["model", *(["optimizer"] if row.workload.task == "train" else []), "step"] == marks


def test_rows_inherit_and_override() -> None:
    """What a group says holds for its rows, tables are merged, the row wins, order 1 comes first."""
    group = {"builder": "mlp", "arguments": {"width": 8, "depth": 2}, "batch": 4}
    rows = [{"id": "b", "order": 2}, {"id": "a", "order": 1, "batch": 1, "arguments": {"depth": 3}}]
    first, second = read_workloads({"group": [{**group, "rows": rows}]})
    assert ("a", 1, {"width": 8, "depth": 3}) == (first.id, first.workload.batch, first.workload.arguments)
    assert ("b", 4, {"width": 8, "depth": 2}) == (second.id, second.workload.batch, second.workload.arguments)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "group"),
        ({"group": [{"builder": "mlp"}]}, r"group\[0\].rows"),
        ({"group": [{"rows": [{"id": "a"}]}]}, r"group\[0\].rows\[0\].builder"),
        ({"group": [{"builder": "mlp", "rows": [{"id": "a"}, {"id": "a"}]}]}, "no other row"),
        ({"group": [{"builder": "mlp", "rows": [{"id": "a", "bach": 3}]}]}, "nearest: batch"),
        ({"group": [{"builder": "mlp", "rows": [{"id": "a", "batch": 0}]}]}, "workload.batch"),
        ({"group": [{"builder": "mlp", "rows": [{"id": "a", "optimizer": "adamW8"}]}]}, "workload.optimizer"),
    ],
)
def test_a_wrong_table_is_refused_with_its_path(values: dict[str, object], expected: str) -> None:
    """The message names the field, and what was expected."""
    with pytest.raises(InvalidValueError, match=expected):
        read_workloads(values)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """Missing files and files that are no TOML get one clear error."""
    with pytest.raises(UnreadableFileError, match="No such file"):
        load_workloads(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_text("[[group")
    with pytest.raises(UnreadableFileError, match="expected TOML"):
        load_workloads(tmp_path / "x.toml")


def test_an_unknown_builder_is_refused() -> None:
    """The nearest names are listed."""
    from vramfit.trace.workloads import run_workload

    with pytest.raises(InvalidValueError, match="nearest: mlp"):
        run_workload(Workload(builder="mlpp"), "cpu")


FOUND = {
    "device": "NVIDIA H200", "device_memory_bytes": 150_121_545_728, "driver": "570.1", "torch": "2.11.0+cu128",
    "packages": {"timm": "1.0.31"}, "driver_used_before_bytes": 4 * 2**20,
    "context": {"process_bytes": None, "driver_used_bytes": 504 * 2**20},
    "peaks": {"requested_peak_bytes": 900, "allocated_peak_bytes": 1024, "active_peak_bytes": 1024,
              "reserved_peak_bytes": 2 * 2**20, "driver_used_bytes": 554 * 2**20, "process_bytes": None},
}  # fmt: skip
"""What a process would print, with round numbers."""


def asked(tmp_path: Path, rows: tuple[ListedWorkload, ...] = TABLE, minutes: float = 1) -> Measuring:
    """Return an order that writes into a scratch folder."""
    return Measuring(rows=rows, card=CARD, device="h200-sxm-141gb", out=tmp_path / "m.jsonl", minutes=minutes)


def test_a_measured_run_says_all_that_is_needed_to_trace_it_again(tmp_path: Path) -> None:
    """The line holds builder, arguments and versions; where no process is seen, what the card lost counts."""
    row = TABLE[0]
    line = measured_run(row, FOUND, asked(tmp_path))
    workload = line["request"]["workload"]
    again = {k: v for k, v in workload.items() if k not in {"kind", "torch_version", "packages"}}
    assert row.workload == Workload(**again)
    assert ("trace", "2.11.0+cu128") == (workload["kind"], workload["torch_version"])
    figures = {m["quantity"]: m["bytes"] for m in line["measured"]}
    assert 550 * 2**20 == figures["process_peak"], "554 MiB used, 4 of them before"
    assert 500 * 2**20 == figures["before_weights"], "504 MiB with a context, 4 of them before"
    assert 548 * 2**20 == figures["non_torch"], "550 MiB less 2 MiB reserved"
    assert (900, 1024) == (figures["requested_peak"], figures["allocated_peak"])


def test_rows_that_cannot_run_here_are_skipped_with_their_reason() -> None:
    """A card that is too small and a package that is missing are said."""
    row = ListedWorkload(id="x", workload=Workload(builder="mlp"), order=1, needs_gib=8)
    assert why_not(row, CARD) is None
    assert "needs about 8 GiB" in str(why_not(row, Card(product="T4", total_bytes=4 * 2**30)))
    row = ListedWorkload(id="x", workload=Workload(builder="mlp"), order=1, needs_gib=8, packages=("no_such_package",))
    assert "no_such_package not installed" == why_not(row, CARD)


def test_the_settings_of_the_allocator_are_those_of_the_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller's shell says about the allocator does not leak into a run."""
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    plain, expandable = (
        next(r for r in TABLE if bool(r.workload.alloc_conf) is with_conf) for with_conf in (False, True)
    )
    assert "PYTORCH_CUDA_ALLOC_CONF" not in environment(plain)
    assert expandable.workload.alloc_conf == environment(expandable)["PYTORCH_CUDA_ALLOC_CONF"]


def test_measuring_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids in the output are not run again, a failure is written beside it, a line that was cut off is replaced."""
    rows, order = TABLE[:3], asked(tmp_path, TABLE[:3])
    ran: list[str] = []

    def run(row: ListedWorkload, *_: object) -> tuple[dict[str, object] | None, str | None]:
        ran.append(row.id)
        return (None, "out of memory") if row is rows[1] else (measured_run(row, FOUND, order), None)

    monkeypatch.setattr("vramfit.trace.measuring._run", run)
    order.out.write_text(json.dumps({"id": f"{rows[0].id}@h200-sxm-141gb"}) + '\n{"id": "cut')
    assert ["out of memory", "measured"] == [p.said for p in measure_rows(order)]
    assert [] == list(measure_rows(order))
    assert [rows[1].id, rows[2].id] == ran
    ids = [json.loads(line)["id"] for line in order.out.read_text().splitlines()]
    assert [f"{rows[0].id}@h200-sxm-141gb", f"{rows[2].id}@h200-sxm-141gb"] == ids


def test_measuring_stops_when_the_time_is_up(tmp_path: Path) -> None:
    """No row begins after the last minute, and what is left is said."""
    (only,) = measure_rows(asked(tmp_path, minutes=0))
    assert f"time is up; {len(TABLE)} left" == only.said


def test_script_needs_the_standard_library_alone() -> None:
    """Without any installed package the script lists the table, and says what it needs to measure: exit code 2."""
    script = str(REPOSITORY / "scripts" / "measure.py")
    listed = subprocess.run([sys.executable, "-S", script, "--list"], capture_output=True, text=True, check=True)
    assert len(TABLE) == len(listed.stdout.splitlines())
    done = subprocess.run([sys.executable, "-S", script], capture_output=True, text=True, check=False)
    assert (2, True) == (done.returncode, "torch is not installed" in done.stderr)


def test_command_without_a_gpu_says_so() -> None:
    """A machine whose torch sees no GPU: one line and exit code 2."""
    table = str(REPOSITORY / "validation" / "workloads.toml")
    command = [sys.executable, "-m", "vramfit", "measure", "--workloads", table]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"CUDA_VISIBLE_DEVICES": "", **_path()}
    )
    assert 2 == done.returncode
    assert "no GPU that torch can use" in done.stderr
    assert 1 == len(done.stderr.splitlines())


def _path() -> dict[str, str]:
    import os

    return dict(os.environ)
