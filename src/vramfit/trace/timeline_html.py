"""A page that shows a replay over time: one file, no network, readable light and dark, wide and narrow.

The shapes are drawn here, as SVG; the page's script only moves a cursor and shows texts that stand in the file.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

from vramfit.trace.recording import CATEGORIES, Category
from vramfit.trace.replay import Replay
from vramfit.trace.timeline_moments import DEFAULT_MOMENTS, Moment, Stretch, categories_in, moments, stretches
from vramfit.trace.timeline_page import PAGE
from vramfit.units import GIB, KIB, MIB

HEIGHT = 1000
"""Units of the drawing from nothing to its top; across, one unit is one moment."""
NUM_TICKS = 4
CAPACITY_IN_VIEW = 1.6
"""The device's end is drawn when it lies no further above the peak than this."""
STACK = (
    Category.PARAMETER, Category.BUFFER, Category.OPTIMIZER_STATE, Category.GRADIENT, Category.ACTIVATION,
    Category.INPUT, Category.COLLECTIVE, Category.WORKSPACE, Category.TEMPORARY, Category.UNKNOWN,
)  # fmt: skip
"""Categories from the bottom up: what stays lies below what comes and goes."""


def timeline_html(replay: Replay, *, device_name: str = "", most: int = DEFAULT_MOMENTS) -> str:
    """Return the page of a replay."""
    found = moments(replay, most)
    shown = [category for category in STACK if category in categories_in(found)]
    capacity = None if replay.allocator.device.endless else replay.allocator.device.total_bytes
    highest = max(m.reserved_bytes for m in found)
    top = max(capacity if capacity is not None and capacity <= highest * CAPACITY_IN_VIEW else 0, highest, 1)
    fields = {
        "title": _text(replay.recording.title or "GPU memory over time"),
        "facts": _facts(replay, device_name, capacity),
        "legend": "".join(_legend(found, shown)),
        "width": str(len(found)),
        "height": str(HEIGHT),
        "shapes": "".join(_shapes(found, shown, top, capacity)),
        "ticks": "".join(_ticks(top)),
        "steps": "".join(_steps_row(stretches(found), len(found))),
        "phases": "".join(_phases(stretches(found), len(found))),
        "last": str(len(found) - 1),
        "peak": str(max(range(len(found)), key=lambda i: found[i].allocated_bytes)),
        "data": _json(_data(replay, found)),
    }
    page = PAGE
    for name, value in fields.items():
        page = page.replace(f"@{name}@", value)
    return page


def size_text(size: int) -> str:
    """Print a size for a reader: three or four digits.

    >>> size_text(20 * 2**20), size_text(3 * 2**30 // 2)
    ('20.0 MiB', '1.50 GiB')
    """
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}" if unit == GIB else f"{size / unit:.1f} {name}"
    return f"{size} B"


def _text(text: str) -> str:
    """Escape a text for the page; ``@`` would be a place for another field."""
    return html.escape(text).replace("@", "&#64;")


def _json(value: object) -> str:
    """Return JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&@\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _facts(replay: Replay, device_name: str, capacity: int | None) -> str:
    peaks = replay.peaks
    facts = [
        ("allocated, at most", size_text(peaks.allocated_bytes)),
        ("reserved, at most", size_text(peaks.reserved_bytes)),
        ("asked for, at most", size_text(peaks.requested_bytes)),
    ]
    if capacity is not None:
        facts.append((device_name or "device", size_text(capacity)))
    elif device_name:
        facts.append(("device", device_name))
    return "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)


def _legend(found: tuple[Moment, ...], shown: list[Category]) -> Iterable[str]:
    peak = max(found, key=lambda m: m.allocated_bytes)
    for category in reversed(shown):
        size = peak.bytes_of[CATEGORIES.index(category)]
        yield (
            f'<li><i class="key c-{category.value}"></i>{_text(_plain(category))} <b>{_text(size_text(size))}</b></li>'
        )
    yield '<li><i class="key reserved"></i>reserved</li>'


def _plain(category: Category) -> str:
    return category.value.replace("_", " ")


def _shapes(found: tuple[Moment, ...], shown: list[Category], top: int, capacity: int | None) -> Iterable[str]:
    """Yield one path for each category, stacked in steps, then the line of what is reserved."""
    below = [0] * len(found)
    for category in shown:
        code = CATEGORIES.index(category)
        above = [low + m.bytes_of[code] for low, m in zip(below, found, strict=True)]
        upper = _steps(above, top)
        lower = _steps(below, top)
        path = "M" + "L".join(upper) + "L" + "L".join(reversed(lower)) + "Z"
        yield f'<path class="c-{category.value}" d="{path}"><title>{_text(_plain(category))}</title></path>'
        below = above
    line = "M" + "L".join(_steps([m.reserved_bytes for m in found], top))
    yield f'<path class="reserved" d="{line}"><title>reserved</title></path>'
    if capacity is not None and capacity <= top:
        y = HEIGHT - HEIGHT * capacity // top
        yield f'<path class="capacity" d="M0 {y}H{len(found)}"><title>the device ends here</title></path>'


def _steps(values: list[int], top: int) -> list[str]:
    """Return the corners of a line that stays level for one moment and then steps; equal neighbours share a level."""
    corners: list[str] = []
    for i, value in enumerate(values):
        if i and value == values[i - 1]:
            continue
        y = HEIGHT - HEIGHT * value // top
        if corners:
            corners.append(f"{i} {HEIGHT - HEIGHT * values[i - 1] // top}")
        corners.append(f"{i} {y}")
    corners.append(f"{len(values)} {HEIGHT - HEIGHT * values[-1] // top}")
    return corners


def _ticks(top: int) -> Iterable[str]:
    for i in range(NUM_TICKS + 1):
        share = 100 * i // NUM_TICKS
        yield f'<span style="bottom:{share}%">{_text(size_text(top * i // NUM_TICKS))}</span>'


def _steps_row(found: tuple[Stretch, ...], width: int) -> Iterable[str]:
    """Yield a band for each step, over all its phases."""
    first = 0
    for i in range(1, len(found) + 1):
        if i == len(found) or found[i].step != found[first].step:
            step = found[first].step
            yield _band(found[first].first, found[i - 1].end, width, "before" if step is None else f"step {step}", step)
            first = i


def _phases(found: Iterable[Stretch], width: int) -> Iterable[str]:
    """Yield a band for each phase, wide as it lasted."""
    for part in found:
        yield _band(part.first, part.end, width, part.phase or "before", part.step)


def _band(first: int, end: int, width: int, name: str, step: int | None) -> str:
    """Return a band with its name; even and odd steps look different."""
    odd = " odd" if step is not None and step % 2 else ""
    share = f"left:{100 * first / width:.3f}%;width:{100 * (end - first) / width:.3f}%"
    return f'<span class="phase{odd}" style="{share}" title="{_text(name)}">{_text(name)}</span>'


def _when(step: int | None, phase: str) -> str:
    return ", ".join(part for part in (f"step {step}" if step is not None else "", phase) if part) or "before"


def _data(replay: Replay, found: tuple[Moment, ...]) -> dict[str, Any]:
    """Return the texts that the script shows: for each moment its head and the rows of what is largest."""
    recording, lines, codes = replay.recording, list[str](), dict[str, int]()
    times = []
    for moment in found:
        rows = []
        for number, size, count in moment.largest:
            frames = recording.frames(number)
            place = f"{frames[0].file}:{frames[0].line} in {frames[0].function}" if frames else ""
            what = " of ".join(part for part in (recording.operator(number), recording.module(number)) if part)
            category = recording.category(number)
            line = json.dumps([category.value, _plain(category), what, place])
            if line not in codes:
                codes[line] = len(lines)
                lines.append(line)
            rows.append([f"{count} x {size_text(size)}" if count > 1 else size_text(size), codes[line]])
        head = (
            f"{_when(moment.step, moment.phase)}: {size_text(moment.allocated_bytes)} allocated, "
            f"{size_text(moment.reserved_bytes)} reserved"
        )
        times.append([head, rows])
    return {"lines": [json.loads(line) for line in lines], "times": times}
