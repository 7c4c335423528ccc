"""Lays sections out as lines of a width: the same in a pipe and in a terminal, which only adds colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vramfit.report.rows import CHART_WIDTH, Row, Section, Tone, bar, chart

NARROWEST_TEXT = 24
"""A text column narrower than this goes below its row."""
NARROWEST = 50
"""Lines are laid out no narrower than this; a narrower terminal breaks them itself."""
WIDEST_NAME = 34


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it will stand there, and how it is meant; None = a title."""

    text: str
    tone: Tone | None = Tone.PLAIN
    chart: str = ""
    """Runs of letters in it that draw shares."""


def render(sections: Iterable[Section], width: int, *, ascii_only: bool = False) -> str:
    """Return the sections as plain text, no line longer than ``width`` unless one word is."""
    return "".join(f"{line.text}\n" for line in lines(sections, width, ascii_only=ascii_only))


def lines(sections: Iterable[Section], width: int, *, ascii_only: bool = False) -> Iterator[Line]:
    """Yield the sections line by line, an empty line between two."""
    for i, section in enumerate(sections):
        if i:
            yield Line("")
        if section.title:
            yield Line(section.title, None)
        yield from _rows(section, max(width, NARROWEST), ascii_only=ascii_only)


def _rows(section: Section, width: int, *, ascii_only: bool) -> Iterator[Line]:
    names = max((len(r.name) + 2 * r.indent for r in section.rows if r.number or r.text), default=0)
    numbers = max((len(r.number) for r in section.rows), default=0)
    margin = 2 if section.title else 0
    names = min(names, WIDEST_NAME)
    column = margin + names + (numbers + 2 if numbers else 0) + 2
    below = width - column < NARROWEST_TEXT
    charts = _chart_width(section, width, column)
    for row in section.rows:
        inset = " " * (margin + 2 * row.indent)
        drawn = chart(row.chart, charts)
        if not row.number and not row.text and row.bar is None:
            found = list(wrap(row.name, width, inset))
        else:
            start = (inset + row.name).ljust(margin + names) + (f"  {row.number:>{numbers}}" if numbers else "")
            text = f"{drawn}  {row.text}".strip() if drawn else _text(row, ascii_only=ascii_only)
            if below or len(start) > column:
                found = [start, *wrap(text, width, inset + 4 * " ")]
            else:
                first, *rest = [*wrap(text, width, " " * column)] or [""]
                found = [start.ljust(column) + first.lstrip(), *rest]
        yield from (Line(text.rstrip(), row.tone, drawn if drawn and drawn in text else "") for text in found)


def _chart_width(section: Section, width: int, column: int) -> int:
    """Return how wide the charts of a section are drawn: all alike, with room for the longest text behind one."""
    texts = max((len(row.text) for row in section.rows if row.chart), default=0)
    inside = width - column if width - column >= NARROWEST_TEXT else width - NARROWEST_TEXT // 2
    return min(CHART_WIDTH, inside - texts - 2)


def _text(row: Row, *, ascii_only: bool) -> str:
    drawn = "" if row.bar is None else bar(row.bar, ascii_only=ascii_only)
    return f"{drawn}  {row.text}".strip() if drawn else row.text


def wrap(text: str, width: int, margin: str) -> Iterable[str]:
    """Yield the text in lines of at most ``width``, each behind ``margin``; a longer word stands alone."""
    line = ""
    for word in text.split(" "):
        if line and len(margin) + len(line) + 1 + len(word) > width:
            yield margin + line
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line:
        yield margin + line
