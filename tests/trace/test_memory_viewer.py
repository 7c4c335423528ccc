"""PyTorch's own memory viewer, in a real browser, draws the snapshots that are written here.

The viewer is no part of any package: put ``torch/utils/viz/MemoryViz.js`` of pytorch/pytorch and ``dist/d3.js`` of
d3 5 (from its npm package) into a folder and name it by VRAMFIT_MEMORY_VIEWER.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from browser import document_of, find_chromium, served
from recordings import busy_recording
from vramfit.trace.allocator_config import parse_config
from vramfit.trace.allocator_events import EventTiming
from vramfit.trace.replay import Replay
from vramfit.trace.snapshot_writer import snapshot_bytes

FOLDER = "VRAMFIT_MEMORY_VIEWER"
SHIM = """
const d3 = window.d3;
export let event = null;
Object.defineProperty(d3, 'event', {get: () => event, set: value => { event = value; }});
export const {select, selectAll, format, axisLeft, scaleLinear, zoom, zoomIdentity, brushX} = d3;
"""
"""d3 as modules: the viewer imports it piece by piece, and reads the event of the moment as a live binding."""
PARTS = ("d3@5", "d3-axis@1", "d3-scale@1", "d3-zoom@1", "d3-brush@1")
PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><script src="d3.js"></script>
<script type="importmap">{imports}</script></head><body><script type="module">
const problems = [];
window.addEventListener('error', e => problems.push(String(e.message)));
window.addEventListener('unhandledrejection', e => problems.push(String(e.reason)));
const report = found => {{
  const pre = document.createElement('pre');
  pre.id = 'result';
  pre.textContent = JSON.stringify({{...found, problems}});
  document.body.appendChild(pre);
}};
try {{
  const {{add_local_files}} = await import('./MemoryViz.js');
  add_local_files([{{name: 'predicted', base64: '{data}'}}], '{view}');
  await new Promise(done => setTimeout(done, 500));
  const shapes = [...document.querySelectorAll('polygon, svg rect')];
  const texts = [];
  for (const shape of shapes) {{
    shape.dispatchEvent(new MouseEvent('mouseover', {{bubbles: true}}));
    for (const pre of document.querySelectorAll('pre')) texts.push(pre.textContent);
  }}
  report({{
    polygons: document.querySelectorAll('polygon').length,
    rects: document.querySelectorAll('svg rect').length,
    labels: [...document.querySelectorAll('svg text')].map(t => t.textContent),
    texts: [...new Set(texts)].slice(0, 400),
  }});
}} catch (error) {{
  problems.push(String(error && error.stack || error));
  report({{polygons: 0, rects: 0, labels: [], texts: []}});
}}
</script></body></html>
"""

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def shown(replay: Replay, view: str, tmp_path: Path) -> dict[str, Any]:
    """Open a replay's snapshot in a view of PyTorch's viewer; return what the page holds."""
    find_chromium()
    source = Path(os.environ.get(FOLDER, ""))
    if not os.environ.get(FOLDER) or not (source / "MemoryViz.js").is_file():
        pytest.skip(f"PyTorch's viewer is not here: {FOLDER} names no folder with MemoryViz.js and d3.js")
    site = tmp_path / "site"
    site.mkdir()
    for name in ("MemoryViz.js", "d3.js"):
        shutil.copy(source / name, site / name)
    (site / "shim.js").write_text(SHIM, "ascii")
    imports = json.dumps({"imports": {f"https://cdn.skypack.dev/{part}": "./shim.js" for part in PARTS}})
    data = base64.b64encode(snapshot_bytes([replay])).decode()
    (site / "index.html").write_text(PAGE.format(imports=imports, data=data, view=view), "ascii")
    with served(site) as address:
        document = document_of(f"{address}/index.html", tmp_path / "profile")
    found = re.search(r'<pre id="result">(.*?)</pre>', document, re.DOTALL)
    assert found is not None, document[-2000:]
    result: dict[str, Any] = json.loads(unescape(found[1]))
    assert [] == result["problems"]
    return result


def replayed(text: str, timing: EventTiming = EventTiming.AT_ONCE) -> Replay:
    """Replay the busy recording with a trace."""
    return Replay(busy_recording(), parse_config(text), timing=timing, keep_trace=True).catch_up()


def test_timeline_shows_every_allocation(tmp_path: Path) -> None:
    """One shape for each allocation and one for the rest, a legend of the categories, frames by hover."""
    found = shown(replayed(""), "Active Memory Timeline", tmp_path)
    assert busy_recording().num_allocations + 1 + 1 == found["polygons"]  # the summary, the small map
    assert {"unknown", "parameter", "activation"} <= set(found["labels"])
    frames = [text for text in found["texts"] if "train.py:12:forward" in text]
    assert frames
    assert "layers.1:0:aten.mm" in frames[0]


@pytest.mark.parametrize("text", ["", "expandable_segments:True"])
def test_state_history_rebuilds_the_past(text: str, tmp_path: Path) -> None:
    """The viewer walks the history backwards and draws segments and blocks without an error."""
    replay = replayed(text, EventTiming.AT_SYNCHRONIZE)
    found = shown(replay, "Allocator State History", tmp_path)
    assert found["rects"] >= len(replay.allocator.books.active)
    assert any("segment" in said for said in found["texts"])


def test_segment_timeline(tmp_path: Path) -> None:
    """Segments over time are drawn, one shape each."""
    replay = replayed("")
    found = shown(replay, "Active Cached Segment Timeline", tmp_path)
    assert sum(event.action == "segment_alloc" for event in replay.trace) + 1 + 1 == found["polygons"]
