"""Draws sections as plain text: no colours, no control characters, wrapped to a width."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.report.rows import Row, Section, bar

NARROWEST_TEXT = 24
WIDEST_NAME = 34


def render(sections: Iterable[Section], width: int, *, ascii_only: bool = False) -> str:
    """Return the sections as text, no line longer than ``width`` unless one word is."""
    lines: list[str] = []
    for section in sections:
        if lines:
            lines.append("")
        if section.title:
            lines.append(section.title)
        lines.extend(_lines(section, max(width, 40), ascii_only=ascii_only))
    return "\n".join(lines) + "\n"


def _lines(section: Section, width: int, *, ascii_only: bool) -> Iterable[str]:
    names = max((len(r.name) + 2 * r.indent for r in section.rows if r.number or r.text), default=0)
    numbers = max((len(r.number) for r in section.rows), default=0)
    margin = 2 if section.title else 0
    names = min(names, WIDEST_NAME)
    column = margin + names + (numbers + 2 if numbers else 0) + 2
    below = width - column < NARROWEST_TEXT
    for row in section.rows:
        start = " " * margin + "  " * row.indent + row.name
        if not row.number and not row.text and row.bar is None:
            yield from wrap(row.name, width, " " * (margin + 2 * row.indent))
            continue
        start = start.ljust(margin + names) + (f"  {row.number:>{numbers}}" if numbers else "")
        text = _text(row, ascii_only=ascii_only)
        if below or len(start) > column:
            yield start.rstrip()
            yield from wrap(text, width, " " * (margin + 2 * row.indent + 4))
        else:
            wrapped = list(wrap(text, width, " " * column)) or [""]
            yield (start.ljust(column) + wrapped[0].lstrip()).rstrip()
            yield from wrapped[1:]


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
