"""Reports as lines: aligned, wrapped to any width, the same in a pipe and in a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vramfit.answer import answer
from vramfit.report.answer import brief, sections
from vramfit.report.layout import Line, lines, render
from vramfit.report.rows import Row, Section, Tone, bar
from vramfit.report.terminal import draw
from vramfit.request import Inference, Request

ANSWER = answer(
    Request(
        model="llama-3.1-70b", workload=Inference(context_tokens=8192, batch=4), device="a100-sxm-80gb", device_count=2
    )
)
TABLE = Section("Title", (Row("weights", "14.96", tone=Tone.STRONG, bar=0.5), Row("norms", "0.00", "a b c", indent=1)))


def test_columns_are_aligned() -> None:
    """Names to the left, numbers to the right of their column, texts below each other."""
    assert (
        render([TABLE], 80, ascii_only=True)
        == """\
Title
  weights  14.96  ##########
    norms   0.00  a b c
"""
    )


def test_long_texts_wrap_below_themselves() -> None:
    """The second line of a text starts where the first does."""
    found = render([Section("", (Row("name", "1", "word " * 20),))], 60).splitlines()
    assert len(found) == 2
    assert {len(line) - len(line.lstrip()) for line in found[1:]} == {len("name  1  ")}


@given(st.integers(50, 200), st.booleans())
def test_no_line_is_wider_and_no_number_is_cut(width: int, ascii_only: bool) -> None:
    """Whatever the width, a line is at most that long and every number of the report is there, whole."""
    found = list(lines(sections(ANSWER), width, ascii_only=ascii_only))
    assert max(len(line.text) for line in found) <= width
    text = "\n".join(line.text for line in found)
    for section in sections(ANSWER):
        assert all(row.number in text for row in section.rows)
    assert text.isascii() or not ascii_only


def test_a_line_keeps_the_tone_of_its_row() -> None:
    """A wrapped row has one tone; a title has none."""
    row = Row("bad news " * 20, tone=Tone.BAD)
    found = list(lines([Section("Title", (row,))], 40))
    assert found[0] == Line("Title", None)
    assert {line.tone for line in found[1:]} == {Tone.BAD}
    assert len(found) > 3


@pytest.mark.parametrize("width", [60, 100])
def test_a_terminal_shows_the_same_lines_in_colour(width: int) -> None:
    """Without its colours, the terminal's output is the pipe's."""
    systems: tuple[Literal["truecolor"] | None, ...] = (None, "truecolor")
    for colours in systems:
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
        console = Console(file=out, width=width, force_terminal=True, color_system=colours, no_color=False)
        draw(sections(ANSWER), console)
        out.seek(0)
        text = out.read()
        assert ("\x1b[" in text) == (colours is not None)
        if colours is not None:
            assert text.startswith("\x1b[1;32mFits on 2 x a100-sxm-80gb")
        if colours is None:
            assert [line.rstrip() for line in text.splitlines()] == render(sections(ANSWER), width).splitlines()


def test_bars_show_shares() -> None:
    """Nothing, a trace, all of it; more than all is all."""
    assert ["", ".", "#" * 20, "#" * 20] == [bar(share, ascii_only=True) for share in (0, 0.001, 1, 7)]


@pytest.mark.parametrize(
    ("name", "model", "device"),
    [
        ("report-70b.txt", "llama-3.1-70b", "a100-sxm-80gb"),
        ("report-hybrid.txt", "Qwen/Qwen3-Next-80B-A3B-Instruct", "h200"),
        ("report-encoder.txt", "google-bert/bert-base-uncased", "t4"),
    ],
)
def test_reports_are_frozen(golden: Callable[[str, str], None], name: str, model: str, device: str) -> None:
    """Whole reports, to be read in review whenever a word or a number moves."""
    workload = Inference(context_tokens=512 if "bert" in model else 8192, batch=4)
    golden(name, render(sections(answer(Request(model=model, workload=workload, device=device))), 100))


def test_a_tight_answer_says_so_first() -> None:
    """A card whose memory lies between the expected and the high figure."""
    peak = ANSWER.estimate.worst.peak()
    between = (peak.expected_bytes + peak.high_bytes) // 2
    found = answer(
        Request(
            model="llama-3.1-70b",
            workload=Inference(context_tokens=8192, batch=4),
            device="a100-sxm-80gb",
            device_count=2,
            device_memory_bytes=between,
        )
    )
    assert brief(found)[0].rows[0].name.startswith("Tight on 2 x a100-sxm-80gb: needs ")
    assert brief(found)[0].rows[0].tone is Tone.WARN
