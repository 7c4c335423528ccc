"""A log beside its prediction, for people: what differs most first."""

from __future__ import annotations

from collections.abc import Iterable

from vramfit.comparison import Advice, Comparison, Part
from vramfit.log_facts import OutOfMemory
from vramfit.report.rows import Row, Section, Tone
from vramfit.result import COUNTED, Total
from vramfit.units import GIB, MIB, format_bytes

SMALL_BYTES = GIB
"""Figures below this are shown in MiB."""


def sections(comparison: Comparison) -> tuple[Section, ...]:
    """Return the whole report."""
    found = (
        _headline(comparison), _parts(comparison), _advice("What would explain it", comparison.explanations),
        _advice("A way out", comparison.ways_out), _facts(comparison), _rest(comparison),
    )  # fmt: skip
    return tuple(section for section in found if section.rows)


def _headline(comparison: Comparison) -> Section:
    rows = []
    if comparison.facts.failure is not None:
        rows.append(Row(_failed(comparison.facts.failure), tone=Tone.BAD))
    worst = comparison.worst
    if worst is not None:
        near = worst.inside or abs(worst.error_ratio) < 0.02
        tone = Tone.GOOD if near else Tone.WARN
        name, gap = _name(worst), _size(worst, abs(worst.predicted - worst.measured))
        side = "above" if worst.predicted > worst.measured else "below"
        rows.append(Row(f"Differs most: {name}, predicted {gap} {side} what was printed ({_error(worst)})", tone=tone))
    elif comparison.request is not None:
        rows.append(Row("No printed figure that can be predicted", tone=Tone.WARN))
        if comparison.need is not None:
            rows.append(Row(_needed(comparison.need, comparison.facts.failure), tone=Tone.WARN))
    return Section("", tuple(rows) or (Row("Nothing to compare", tone=Tone.WARN),))


def _failed(failure: OutOfMemory) -> str:
    short = failure.needed_bytes - failure.free_bytes
    if not failure.needed_bytes:
        return f"Failed on {failure.what}"
    text = f"Failed on {failure.what}: asked {format_bytes(failure.needed_bytes)}, there were "
    text += f"{format_bytes(failure.free_bytes)}: {format_bytes(short)} short"
    if failure.total_bytes is not None:
        text += f" on a device of {format_bytes(failure.total_bytes)}"
    if failure.allocated_bytes is not None:
        text += f"; torch held {format_bytes(failure.allocated_bytes)}"
    if failure.fragmented_bytes is not None:
        text += f" and kept {format_bytes(failure.fragmented_bytes)} unused"
    return text


def _needed(need: Total, failure: OutOfMemory | None) -> str:
    low, expected, high = (format_bytes(int(b)) for b in (need.low_bytes, need.expected_bytes, need.high_bytes))
    text = f"Predicted need of this request: {expected} ({low} to {high})"
    if failure is None or failure.allocated_bytes is None:
        return text
    wanted = failure.allocated_bytes + failure.needed_bytes
    text += f"; torch held and asked {format_bytes(wanted)}"
    if wanted <= need.high_bytes:
        return text
    return f"{text}, more than this request needs: longer or more sequences than stated?"


def _parts(comparison: Comparison) -> Section:
    rows = [
        Row(
            _name(part),
            _size(part, part.predicted),
            f"printed {_size(part, part.measured)}, {_error(part)}; {_band(part)}",
            Tone.PLAIN if part.inside else Tone.WARN,
        )
        for part in comparison.parts
    ]
    return Section("Predicted, beside what was printed", tuple(rows))


def _name(part: Part) -> str:
    device = "" if part.scope == "device" else f" {part.scope.removeprefix('device:')}"
    return part.quantity.value.replace("_", " ") + device


def _size(part: Part, value: float) -> str:
    if part.quantity in COUNTED:
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value / GIB:.2f} GiB" if part.measured >= SMALL_BYTES else f"{value / MIB:.2f} MiB"


def _error(part: Part) -> str:
    return f"{100 * part.error_ratio:+.1f} %" if part.measured > 0 else "of nothing"


def _band(part: Part) -> str:
    inside = "inside" if part.inside else "outside"
    return f"{inside} {_size(part, part.low)} to {_size(part, part.high)}"


def _advice(title: str, found: Iterable[Advice]) -> Section:
    return Section(title, tuple(Row(" ".join(map(str, a.turns)), "", _instead(a), Tone.STRONG) for a in found))


def _instead(advice: Advice) -> str:
    seen = dict.fromkeys(turn.seen for turn in advice.turns)
    return f"instead of {', '.join(seen)}: {advice.why}"


def _facts(comparison: Comparison) -> Section:
    rows = [Row(g.path.rpartition(".")[2], "", f"{g.value}: {g.said}") for g in comparison.facts.given]
    total = comparison.facts.device_total_bytes
    if total is not None:
        rows.append(Row("device memory", "", format_bytes(total)))
    rows += [Row("", "", note, Tone.QUIET) for note in comparison.facts.notes]
    return Section("Read from the log", tuple(rows))


def _rest(comparison: Comparison) -> Section:
    rows = [Row("assumed", "", text, Tone.WARN) for text in comparison.assumptions]
    rows += [Row("not predicted", "", text, Tone.QUIET) for text in comparison.not_predicted]
    return Section("What this rests on", tuple(rows))
