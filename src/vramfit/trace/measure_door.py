"""What ``vramfit measure`` and ``scripts/measure.py`` do alike, with torch and the standard library alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vramfit.errors import InvalidValueError
from vramfit.trace.measuring import Measuring, Progress, dry_run, find_gpu, measure
from vramfit.trace.workload_table import load_workloads
from vramfit.workload import ListedWorkload

SOME_FAILED = 1
"""Exit code of a dry run in which a row failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for on the command line."""

    workloads: Path
    out: Path
    minutes: float
    only: tuple[str, ...] = ()
    again: bool = False
    dry_run: bool = False
    listed: bool = False


def measured(asked: Asked, name_of: Callable[[str, int], str | None], say: Callable[[str], object]) -> int:
    """Measure, or try, or list; return the exit code.

    Raises:
        VramfitError: no GPU here, or a table or an output file that is something else.
    """
    rows = chosen(load_workloads(asked.workloads), asked.only)
    if asked.listed:
        for row in rows:
            say(f"{row.order}  {row.id:<45} {row.workload.builder:<16} {row.needs_gib:6g} GiB")
        return 0
    if asked.dry_run:
        return _tried(rows, say)
    card = find_gpu()
    device = name_of(card.product, card.total_bytes)
    say(f"{card.product}, {card.total_bytes:,} bytes ({device or 'not in the catalogue'}): {len(rows)} workloads")
    order = Measuring(rows=rows, card=card, device=device, out=asked.out, minutes=asked.minutes, again=asked.again)
    for progress in measure(order):
        say(line(progress))
    say(f"written to {asked.out}; now: vramfit validate {asked.out}")
    return 0


def chosen(rows: tuple[ListedWorkload, ...], only: tuple[str, ...]) -> tuple[ListedWorkload, ...]:
    """Return the rows whose id begins with one of the texts; no text = all of them.

    Raises:
        InvalidValueError: a text with which no id begins.
    """
    for text in only:
        if not any(row.id.startswith(text) for row in rows):
            raise InvalidValueError("--only", text, "the beginning of an id; --list prints all")
    return tuple(row for row in rows if not only or row.id.startswith(only))


def _tried(rows: tuple[ListedWorkload, ...], say: Callable[[str], object]) -> int:
    from vramfit.trace.workloads import run_workload, tiny  # noqa: PLC0415 - imports torch

    failed = 0
    for progress in dry_run(rows, lambda row: run_workload(tiny(row.workload), "cpu")):
        failed += progress.said.startswith("failed")
        say(line(progress))
    say(f"{len(rows) - failed} of {len(rows)} work; nothing was measured")
    return SOME_FAILED if failed else 0


def line(progress: Progress) -> str:
    """Return one row of progress as text."""
    return f"[{progress.done:3}/{progress.of}] {progress.seconds:6.1f} s  {progress.id:<45} {progress.said}"
