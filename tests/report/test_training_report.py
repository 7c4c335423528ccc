"""The report about training: the step over time, sums that add up, nothing said by colour alone."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from vramfit.report.layout import render
from vramfit.report.rows import CHART_WIDTH, Row, Section, chart
from vramfit.report.terminal import draw
from vramfit.report.training import PARTS, brief, sections, shown_moments
from vramfit.request import Plan
from vramfit.result import Phase, Verdict
from vramfit.timeline import Moment, Timeline
from vramfit.training import OffloadAsked, Training, TrainingRequest
from vramfit.training_answer import answer_training
from vramfit.training_result import TrainingAnswer

ANSWER = answer_training(
    TrainingRequest(
        model="meta-llama/Llama-3.1-8B",
        workload=Training(
            framework="torchtitan", sequence_tokens=2048, recompute="full", offload=OffloadAsked(optimizer="cpu")
        ),
        plan=Plan(dp_shard=2, pp=2),
        device="h100-sxm-80gb",
    )
)


def printed(answer: TrainingAnswer, width: int = 100) -> str:
    """Return the whole report as a pipe shows it."""
    return render(sections(answer), width, ascii_only=True)


def test_the_report_says_what_it_must() -> None:
    """Verdict, why, readings, timeline, parts, ranks, host memory, choices, what is left out."""
    text = printed(ANSWER)
    for words in (
        "on 4 x h100-sxm-80gb", "The peak is at", "What counters will show", "Over one step, GiB allocated", "<- peak",
        "What takes memory at the peak", "Every distinct rank", "In host memory", "Decided for you", "Not counted",
        "W weights",
    ):  # fmt: skip
        assert words in text
    assert "overhead" not in text.lower()


def test_the_column_adds_up() -> None:
    """Groups at the peak are together the printed sum, give or take the rounding of two decimals."""
    memory = next(part for part in sections(ANSWER) if part.title.startswith("What takes memory"))
    groups = [float(row.number) for row in memory.rows if row.indent == 0 and row.bar is not None]
    (whole,) = [float(row.number) for row in memory.rows if row.name == "sum at the peak"]
    assert whole == pytest.approx(sum(groups), abs=0.01 * len(groups))
    assert f"{whole:.2f}" in sections(ANSWER)[0].rows[0].name


def test_charts_of_a_step_have_one_scale() -> None:
    """The fullest moment is the longest run of letters; every letter stands in the legend."""
    (part,) = [part for part in sections(ANSWER) if part.title.startswith("Over one step")]
    rows = [row for row in part.rows if row.chart]
    peak = max(rows, key=lambda row: float(row.number))
    assert peak.text == "<- peak"
    assert sum(share for _, share in peak.chart) == pytest.approx(1.0, abs=0.02)
    drawn = {letter for row in rows for letter, share in row.chart if share * CHART_WIDTH >= 0.5}
    assert drawn == {part.split(" ")[0] for part in part.rows[-1].name.split("; ")}
    letters = {letter for row in rows for letter, _ in row.chart}
    assert all(f"{letter} " in part.rows[-1].name for letter in letters)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_lines_fit_their_width(width: int) -> None:
    """No line is longer than the terminal, charts included."""
    assert max(map(len, printed(ANSWER, width).splitlines())) <= width
    bars = [match[0] for match in re.finditer(r"(?<= )[A-Z]{3,}(?= |$)", printed(ANSWER, width), re.MULTILINE)]
    assert max(map(len, bars)) >= width // 4


def test_a_chart_keeps_its_length() -> None:
    """Ends are rounded, not parts: ten shares of a tenth fill the whole."""
    assert "W" * 7 == chart((("W", 0.1),) * 10, 7)
    assert "" == chart((), 10)


def test_colours_say_nothing_that_letters_do_not() -> None:
    """With colours the same characters are printed, each letter with its own background."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", no_color=False, width=80, highlight=False)
    draw(sections(ANSWER), console)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert plain.split() == render(sections(ANSWER), 80).split()
    assert re.search(r"\x1b\[30;10[1-6]m", out.getvalue())


def test_brief_leaves_the_parts_out() -> None:
    """Verdict, readings and groups remain."""
    text = render(brief(ANSWER), 100)
    assert "What counters will show" in text
    assert "Over one step" not in text
    assert "[derived]" not in text


def test_long_steps_are_told_by_their_ends() -> None:
    """Of each phase the first, the fullest and the last moment are shown, in order."""
    sizes = [1, 5, 9, 3, 2, *range(20, 40), 4]
    moments = tuple(
        Moment(phase=Phase.FORWARD, label=str(i), parts=(("weights", size),)) for i, size in enumerate(sizes)
    )
    shown = shown_moments(Timeline(rank="", moments=moments))
    assert ["0", "24", "25"] == [moment.label for moment in shown]


def test_letters_are_unlike_one_another() -> None:
    """No two parts share a letter."""
    assert len(PARTS) == len({letter for letter, _ in PARTS.values()})


def test_a_chart_in_a_section_leaves_room_for_its_text() -> None:
    """What stands behind a chart is on its line."""
    rows = (Row("a", "1.00", "<- peak", chart=(("W", 1.0),)), Row("b", "0.50", chart=(("W", 0.5),)))
    text = render([Section("T", rows)], 60)
    assert re.search(r"W+  <- peak", text)
    assert 2 * len(re.findall(r"W+", text)[1]) == pytest.approx(len(re.findall(r"W+", text)[0]), abs=1)


def test_a_tight_job_is_not_said_to_be_impossible() -> None:
    """Where the expected figure fits and the high one does not, "none" means that none fits for certain."""
    asked = TrainingRequest(
        model="meta-llama/Llama-3.1-8B",
        workload=Training(framework="transformers", precision="bf16", sequence_tokens=2048),
        device="h100-sxm-80gb",
    )
    tight = answer_training(asked)
    assert Verdict.TIGHT is tight.fit.verdict
    assert "none fits for certain" in printed(tight)
