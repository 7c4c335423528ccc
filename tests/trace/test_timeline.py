"""The timeline keeps every peak, and the page says so without a network."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from browser import document_of, served
from recordings import busy_recording
from vramfit.trace.allocator_device import DeviceMemory
from vramfit.trace.recording import CATEGORIES, Category, Frame, Mark, Recording
from vramfit.trace.replay import Replay
from vramfit.trace.timeline_html import size_text, timeline_html
from vramfit.trace.timeline_moments import categories_in, moments, stretches
from vramfit.units import MIB


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 50 * MIB), st.integers(0, 9)), min_size=1, max_size=80),
    most=st.integers(1, 30),
)
def test_no_peak_is_lost(sizes: list[tuple[int, int]], most: int) -> None:
    """However few moments there are, the highest of them is the peak, and the largest tensors are those alive."""
    recording, held = Recording(), list[int]()
    for size, choice in sizes:
        if held and choice > 4:
            recording.free(held.pop(choice % len(held)))
        held.append(recording.allocate(size, category=CATEGORIES[choice % 3]))
    replay = Replay(recording).catch_up()
    found = moments(replay, most)
    assert len(found) <= most
    assert replay.peaks.allocated_bytes == max(m.allocated_bytes for m in found)
    for moment in found:
        alive = sorted((replay.size_of(n) for n in recording.alive(moment.event)), reverse=True)
        assert sum(alive) == moment.allocated_bytes
        assert alive[:1] == [size for _, size, _ in moment.largest][:1]
        assert sum(count for _, _, count in moment.largest) <= len(alive)
        assert moment.reserved_bytes >= moment.allocated_bytes


def test_stretches_are_phases_of_steps() -> None:
    """Neighbouring moments of one phase and step are one stretch; stretches cover all moments."""
    recording = Recording()
    for step in range(2):
        recording.mark(Mark.STEP, value=step)
        for phase in ("forward", "backward"):
            recording.mark(Mark.PHASE, phase)
            recording.free(recording.allocate(MIB))
    found = moments(Replay(recording).catch_up())
    parts = [(s.step, s.phase) for s in stretches(found) if any(m.allocated_bytes for m in found[s.first : s.end])]
    assert [(0, "forward"), (0, "backward"), (1, "forward"), (1, "backward")] == list(dict.fromkeys(parts))
    assert len(found) == sum(s.end - s.first for s in stretches(found))


def test_categories_are_those_that_were_alive() -> None:
    """A category without an allocation is not in the legend."""
    found = moments(Replay(busy_recording()).catch_up())
    assert (Category.PARAMETER, Category.ACTIVATION) == categories_in(found)


SAID = ("</script><b>", "<img src", "<script>alert")


def page() -> str:
    """Draw the busy recording on a device."""
    return timeline_html(Replay(busy_recording(), device=DeviceMemory(80 * MIB)).catch_up(), device_name="test card")


def test_page_is_self_contained() -> None:
    """No address of another host is in it, no script but its own, and its data cannot end the script."""
    recording = Recording("</script><script>alert(1)</script>")
    recording.allocate(MIB, module="</script><b>", frames=(Frame("<img src=x>", 1, "</script>"),))
    text = timeline_html(Replay(recording).catch_up())
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
    assert 2 == text.count("</script>")
    assert [] == [said for said in SAID if said in text]


def test_page_says_the_peaks() -> None:
    """Peaks, device, steps and categories stand in the text."""
    replay = Replay(busy_recording()).catch_up()
    text = unescape(page())
    for said in ("test card", size_text(replay.peaks.allocated_bytes), "parameter", "activation", "step 2"):
        assert said in text


@pytest.mark.slow
@pytest.mark.browser
def test_hover_shows_the_largest_tensors(tmp_path: Path) -> None:
    """In a real browser the pointer over the chart lists what was alive there, with its line of code."""
    watch = """<script>
    const problems = [];
    window.addEventListener('error', e => problems.push(e.message));
    window.addEventListener('load', () => {
      const chart = document.querySelector('.chart'), box = chart.getBoundingClientRect();
      const seen = [0.1, 0.2, 0.5, 0.9].map(share => {
        const at = {clientX: box.left + box.width * share, clientY: box.top + 20, bubbles: true};
        chart.dispatchEvent(new PointerEvent('pointermove', at));
        return document.querySelector('.now').textContent;
      });
      const pre = document.createElement('pre');
      pre.id = 'result';
      pre.textContent = JSON.stringify({problems, seen, wide: document.documentElement.scrollWidth <= innerWidth});
      document.body.append(pre);
    });</script></body>"""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text(page().replace("</body>", watch), "utf-8")
    with served(tmp_path / "site") as address:
        document = document_of(f"{address}/index.html", tmp_path / "profile")
    found = re.search(r'<pre id="result">(.*?)</pre>', document, re.DOTALL)
    assert found is not None
    result = json.loads(unescape(found[1]))
    assert ([], True) == (result["problems"], result["wide"])
    assert 4 == len(set(result["seen"]))
    assert any("train.py:12" in text and "activation" in text for text in result["seen"])
