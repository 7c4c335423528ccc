"""What a report consists of: sections of rows with a name, a number and a text; two renderers know how to draw them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tone(StrEnum):
    """How a row is meant; a terminal with colours shows it, a pipe does not need it."""

    PLAIN = "plain"
    STRONG = "strong"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    QUIET = "quiet"


@dataclass(frozen=True, slots=True)
class Row:
    """One line: indented name, number, and a text that wraps."""

    name: str
    number: str = ""
    text: str = ""
    tone: Tone = Tone.PLAIN
    indent: int = 0
    bar: float | None = None
    """Share of a whole from 0 to 1, drawn before the text; None = no bar."""
    chart: tuple[tuple[str, float], ...] = ()
    """Letters and their shares of a whole, drawn one after another before the text; empty = no chart."""


@dataclass(frozen=True, slots=True)
class Section:
    """A title and its rows; no title = the headline."""

    title: str
    rows: tuple[Row, ...]


BAR_WIDTH = 20
"""Characters of a full bar."""


def bar(share: float, *, ascii_only: bool) -> str:
    """Draw a share of a whole.

    >>> bar(0.5, ascii_only=True)
    '##########'
    """
    full = "#" if ascii_only else "\u2588"
    filled = round(max(0.0, min(1.0, share)) * BAR_WIDTH)
    if not filled and share > 0:
        return "." if ascii_only else "\u258f"
    return full * filled


CHART_WIDTH = 48
"""Characters of a full chart, where there is room."""


def chart(parts: tuple[tuple[str, float], ...], width: int) -> str:
    """Draw shares of a whole as runs of letters; ends are rounded, so that the sum keeps its length.

    >>> chart((("W", 0.5), ("A", 0.25)), 8)
    'WWWWAA'
    """
    drawn, reached = "", 0.0
    for letter, share in parts:
        reached += share
        drawn += letter * (round(reached * width) - len(drawn))
    return drawn
