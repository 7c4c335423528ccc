"""``measure``: run a table of workloads on the GPU of this machine and write down what the counters say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

DEFAULT_TABLE = Path("validation") / "workloads.toml"
DEFAULT_OUT = Path("measured.jsonl")
MINUTES = 15.0


@click.command("measure")
@click.option("--workloads", type=click.Path(path_type=Path), default=DEFAULT_TABLE, help="Table of workloads (TOML).")
@click.option("--out", type=click.Path(path_type=Path), default=DEFAULT_OUT, help="Measured runs, one JSON line each.")
@click.option("--minutes", type=float, default=MINUTES, show_default=True, help="Time for all; most informative first.")
@click.option("--only", multiple=True, help="Rows whose id begins so; may be given several times.")
@click.option("--again", is_flag=True, help="Try rows that failed before once more.")
@click.option("--dry-run", is_flag=True, help="Try every row at tiny size on the CPU; measures nothing, needs no GPU.")
@click.option("--list", "listed", is_flag=True, help="Print the rows and stop.")
def measure_command(**given: Any) -> int:  # noqa: ANN401 - click's options, named in the decorators above
    """Run workloads on the GPU of this machine, each in a fresh process, and write measured runs.

    What is in the output file already is not run again, so the same command goes on where it stopped.
    `vramfit validate OUT` then predicts every run and compares.
    """
    from vramfit.trace.measure_door import Asked, measured  # noqa: PLC0415 - shared with scripts/measure.py

    return measured(Asked(**given), _catalogue_name, click.echo)


def _catalogue_name(product: str, total_bytes: int) -> str | None:
    """Return how the catalogue calls a card; None = it is not there."""
    from vramfit.catalogue.device import find_card  # noqa: PLC0415

    found = find_card(product, total_bytes)
    return None if found is None else found.name
