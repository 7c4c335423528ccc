"""``validate``: predict what others measured and say how far off we are."""

from __future__ import annotations

from pathlib import Path

import click

from vramfit.accuracy import Accuracy, Row, validate
from vramfit.cli.show import show
from vramfit.report.rows import Row as Line
from vramfit.report.rows import Section, Tone
from vramfit.result import COUNTED
from vramfit.units import GIB


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--engine", help="Only runs of this engine or framework.")
@click.option("--json", "as_json", is_flag=True, help="Print rows, summary and what was skipped as JSON.")
def validate_command(files: tuple[Path, ...], engine: str | None, as_json: bool) -> None:
    """Predict the measured runs of FILES (JSON lines, version 1) and compare, worst first."""
    from vramfit.measured_wire import accuracy_to_json, load_runs  # noqa: PLC0415 - only this command pays for msgspec

    runs = [run for path in files for run in load_runs(path)]
    found = validate(run for run in runs if engine in {None, run.runtime})
    if as_json:
        click.echo(accuracy_to_json(found))
        return
    show((_summary(found), _rows(found), _skipped(found)))


def _summary(found: Accuracy) -> Section:
    lines = [
        Line(
            f"{s.engine_or_framework} {s.quantity.value}", f"{100 * s.median_abs_error_ratio:.2f}",
            f"90th {100 * s.p90_abs_error_ratio:.2f}; of {s.n}; {100 * s.under_estimate_ratio:.0f} % under; "
            f"{100 * s.inside_band_ratio:.0f} % inside a band of {100 * s.median_band_ratio:.1f} %; "
            f"worst {100 * s.worst_error_ratio:+.1f} ({s.worst_id})",
        )
        for s in found.summary
    ]  # fmt: skip
    return Section("Median absolute error, %", tuple(lines))


def _rows(found: Accuracy) -> Section:
    worst = sorted(found.rows, key=lambda row: -abs(row.error_ratio))
    lines = [
        Line(
            f"{row.engine} {row.quantity.value}", f"{100 * row.error_ratio:+.2f}",
            f"{_figure(row, row.predicted)} for {_figure(row, row.measured)}; {row.id}",
            Tone.PLAIN if row.inside else Tone.WARN,
        )
        for row in worst
    ]  # fmt: skip
    return Section("Every figure, worst first, %", tuple(lines))


def _figure(row: Row, value: float) -> str:
    return f"{value:,.1f}" if row.quantity in COUNTED else f"{value / GIB:.3f} GiB"


def _skipped(found: Accuracy) -> Section:
    return Section(f"Skipped: {len(found.skipped)}", tuple(Line(s.id, "", s.reason) for s in found.skipped))
