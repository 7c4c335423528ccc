"""Prints sections: with rich in a terminal, as plain text in a pipe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable

import click

from vramfit.report.layout import render
from vramfit.report.rows import Section

WIDEST = 10_000
PIPE_WIDTH = 100
"""Width in a pipe when COLUMNS is not set."""


def show(sections: Iterable[Section]) -> None:
    """Print sections; NO_COLOR switches colours off, COLUMNS sets the width."""
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console  # noqa: PLC0415 - a pipe does not pay for it

        from vramfit.report.terminal import draw  # noqa: PLC0415

        draw(sections, Console(highlight=False))
        return
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and 0 < int(columns) < WIDEST else PIPE_WIDTH
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    click.echo(render(sections, width, ascii_only=ascii_only), nl=False)


def show_json(value: object) -> None:
    """Print a value as JSON, indented."""
    click.echo(json.dumps(value, indent=2))
