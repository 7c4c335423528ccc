"""Draws sections in a terminal with rich: colours and bars, adapting to the width."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from vramfit.report.rows import Row, Section, Tone, bar

STYLES = {
    Tone.PLAIN: "",
    Tone.STRONG: "bold",
    Tone.GOOD: "bold green",
    Tone.WARN: "bold yellow",
    Tone.BAD: "bold red",
    Tone.QUIET: "dim",
}
NARROW = 90
"""Below this width the text goes under its row instead of beside it."""


def draw(sections: Iterable[Section], console: Console) -> None:
    """Print the sections on a console."""
    ascii_only = console.encoding.lower() not in {"utf-8", "utf8", "utf_8"}
    for i, section in enumerate(sections):
        if i:
            console.print()
        if section.title:
            console.print(Text(section.title, style="bold cyan"))
        if any(row.number or row.text for row in section.rows):
            console.print(Padding(_table(section, console.width, ascii_only=ascii_only), (0, 0, 0, 2)))
        else:
            for row in section.rows:
                console.print(Padding(Text(row.name, style=STYLES[row.tone]), (0, 0, 0, 2 if section.title else 0)))


def _table(section: Section, width: int, *, ascii_only: bool) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    if width >= NARROW:
        table.add_column(ratio=1)
    for row in section.rows:
        name = Text("  " * row.indent + row.name, style=STYLES[row.tone])
        number = Text(row.number, style=STYLES[row.tone])
        if width >= NARROW:
            table.add_row(name, number, _text(row, ascii_only=ascii_only))
        else:
            table.add_row(name, number)
            for line in (
                _text(row, ascii_only=ascii_only).wrap(Console(width=width), max(20, width - 8)) if row.text else ()
            ):
                table.add_row(Text("    ") + line, "")
    return table


def _text(row: Row, *, ascii_only: bool) -> Text:
    text = Text()
    if row.bar is not None:
        text.append(bar(row.bar, ascii_only=ascii_only) + "  ", style="cyan")
    return text.append(row.text, style=STYLES[row.tone] if row.tone is not Tone.PLAIN else "")
