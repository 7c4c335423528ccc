"""Prints sections in a terminal: the lines of ``layout``, coloured by rich."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from vramfit.report.layout import lines
from vramfit.report.rows import Section, Tone

STYLES = {
    None: "bold cyan",
    Tone.PLAIN: "",
    Tone.STRONG: "bold",
    Tone.GOOD: "bold green",
    Tone.WARN: "bold yellow",
    Tone.BAD: "bold red",
    Tone.QUIET: "dim",
}
"""Colours of the terminal's own palette, so that they suit light and dark ones."""
BARS = r"[\u2588\u258f]+"
CHART_COLOURS = tuple(f"bright_{name}" for name in ("cyan", "magenta", "green", "yellow", "blue", "red"))
"""Behind the letters of a chart, in turn as they appear, with black on them: the same on light and dark terminals.
The letters themselves say what they mean."""


def draw(sections: Iterable[Section], console: Console) -> None:
    """Print the sections on a console, which knows its width, its encoding and whether it has colours."""
    ascii_only = console.encoding.lower().replace("-", "") != "utf8"
    letters: dict[str, int] = {}
    for line in lines(sections, console.width, ascii_only=ascii_only):
        text = Text(line.text, style=STYLES[line.tone], no_wrap=True, overflow="ignore")
        text.highlight_regex(BARS, "cyan")
        if line.chart:
            start = line.text.index(line.chart)
            for i, letter in enumerate(line.chart, start):
                place = letters.setdefault(letter, len(letters))
                text.stylize(f"black on {CHART_COLOURS[place % len(CHART_COLOURS)]}", i, i + 1)
        console.print(text)
