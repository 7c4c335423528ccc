"""Write docs/accuracy.md: every run of validation/, predicted, worst first; ``--check`` fails when it is stale."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from vramfit.accuracy import Accuracy, Row, Summary, ninetieth, summary, validate
from vramfit.measured_wire import load_runs
from vramfit.result import COUNTED
from vramfit.units import GIB

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "validation"
PAGE = ROOT / "docs" / "accuracy.md"
REASONS = RUNS / "reasons.json"
OPENING = """<!-- Written by scripts/accuracy_page.py from validation/*.jsonl: edit there. -->
# How accurate the predictions are

Every figure below was measured by somebody else and published; each run's source stands in `validation/`.
An error of +2 % means that we predict 2 % more than was measured.
*Under* is the share of figures that we predict too small
by more than 2 % (of a server's cache: too large, which is the dangerous side there).
*Inside* is the share that lies in the printed band.
*Rule* is what the widely quoted rule of thumb would have said for the same figures (`vramfit rough`).

`vramfit validate validation/*.jsonl` computes this page's figures again.

"""


TRAINING = """
## Training, by source, %

*Under* counts from 5 % on here: reserved memory differs by up to 4.7 % between ranks that do the same work.
*Complete* are the figures of runs whose source says everything that they depend on: which counter was read and in
which unit, how long the sequences really were, what was computed again. Those of the others are predicted too, and
what is missing stands with each of them. The rule of thumb is what `vramfit rough --training` says, the whole divided
over the devices.

"""


def page(found: Accuracy, reasons: dict[str, str], sources: dict[str, str]) -> str:
    """Return the page as it should be."""
    trained = [row for row in found.rows if row.trains]
    served = [row for row in found.rows if not row.trains]
    parts = [OPENING, "## By engine and quantity, %\n\n", _summary(found), TRAINING, _by_source(trained, sources)]
    parts += ["\n## Every figure of training, worst first\n\n", _rows(trained, reasons)]
    parts += ["\n## Every figure of serving, worst first\n\n", _rows(served, reasons)]
    parts += [f"\n## Not predicted: {len(found.skipped)}\n\n", _skipped(found, reasons)]
    return "".join(parts)


def _by_source(rows: list[Row], sources: dict[str, str]) -> str:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.engine, sources[row.id], row.quantity.value), []).append(row)
    head = (
        "| Framework | Source | Quantity | Figures | Median error | 90th percentile | Under | Inside | Width of the "
        "band | Complete | Median | 90th | Rule: median | Rule: 90th |\n"
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    return head + "".join(_source_line(source, groups[key]) for key in sorted(groups) for _, source, _ in [key])


def _source_line(source: str, rows: list[Row]) -> str:
    s, whole = summary(rows), [row for row in rows if not row.incomplete]
    errors = [abs(row.error_ratio) for row in whole]
    complete = f"{_percent(median(errors))} | {_percent(ninetieth(errors))}" if errors else " | "
    rules = [abs(r.rule / r.measured - 1) for r in rows if r.rule is not None]
    cells = (
        s.engine_or_framework, source, s.quantity.value, str(s.n), _percent(s.median_abs_error_ratio),
        _percent(s.p90_abs_error_ratio), f"{100 * s.under_estimate_ratio:.0f}", f"{100 * s.inside_band_ratio:.0f}",
        _percent(s.median_band_ratio), str(len(whole)),
    )  # fmt: skip
    return f"| {' | '.join(cells)} | {complete} | {_percent(median(rules))} | {_percent(ninetieth(rules))} |\n"


def _summary(found: Accuracy) -> str:
    head = (
        "| Engine | Quantity | Figures | Median error | 90th percentile | Under | Inside | Width of the band | Worst "
        "| Rule: median | Rule: 90th |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    )
    return head + "".join(_summary_line(s, found.rows) for s in found.summary)


def _summary_line(s: Summary, rows: Iterable[Row]) -> str:
    mine = [r for r in rows if (r.engine, r.quantity, r.trains) == (s.engine_or_framework, s.quantity, s.trains)]
    rules = [abs(r.rule / r.measured - 1) for r in mine if r.rule is not None]
    rule = f"{_percent(median(rules))} | {_percent(ninetieth(rules))}" if rules else " | "
    cells = (
        s.engine_or_framework + (", training" if s.trains else ""), s.quantity.value, str(s.n),
        _percent(s.median_abs_error_ratio), _percent(s.p90_abs_error_ratio),
        f"{100 * s.under_estimate_ratio:.0f}", f"{100 * s.inside_band_ratio:.0f}",
        _percent(s.median_band_ratio), f"{100 * s.worst_error_ratio:+.1f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} | {rule} |\n"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.2f}"


def _rows(rows: Iterable[Row], reasons: dict[str, str]) -> str:
    lines = ["| Error, % | Engine | Quantity | Measured | Predicted | Band | Run |\n|--:|---|---|--:|--:|---|---|\n"]
    for row in sorted(rows, key=lambda r: (-abs(r.error_ratio), r.id, r.quantity)):
        band = f"{_figure(row, row.low)} to {_figure(row, row.high)}" + ("" if row.inside else ", outside")
        why = reasons.get(f"{row.id}/{row.quantity.value}") or reasons.get(row.id, "")
        cells = (
            f"{100 * row.error_ratio:+.2f}", row.engine, row.quantity.value, _figure(row, row.measured),
            _figure(row, row.predicted), band, f"{row.id}{_open(row)}" + (f": {why}" if why else ""),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _open(row: Row) -> str:
    return f" ({', '.join(row.incomplete)})" if row.incomplete else ""


def _figure(row: Row, value: float) -> str:
    return f"{value:,.1f}" if row.quantity in COUNTED else f"{value / GIB:.3f} GiB"


def _skipped(found: Accuracy, reasons: dict[str, str]) -> str:
    lines = (f"- {s.id}: {s.reason}{f' ({reasons[s.id]})' if s.id in reasons else ''}\n" for s in found.skipped)
    return "".join(lines) or "None.\n"


def main(arguments: list[str]) -> int:
    """Write or compare."""
    runs = [run for path in sorted(RUNS.glob("*.jsonl")) for run in load_runs(path)]
    reasons = json.loads(REASONS.read_text("utf-8")) if REASONS.exists() else {}
    sources = {run.id: run.source.split(" ")[0].split("#")[0] for run in runs}
    text = page(validate(runs), reasons, sources)
    if "--check" in arguments:
        if PAGE.exists() and PAGE.read_text("utf-8") == text:
            return 0
        print(f"{PAGE.relative_to(ROOT)}: stale; run scripts/accuracy_page.py", file=sys.stderr)
        return 1
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
