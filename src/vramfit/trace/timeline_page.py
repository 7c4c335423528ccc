"""The page of the timeline: words in ``@...@`` are filled in by ``timeline_html``."""

from __future__ import annotations

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@title@</title>
<style>
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --ink: #1d1f21; --quiet: #5d636b; --line: #d4d6d9; --band: #ececea; --odd: #e0e2e6;
  --parameter: #2f6db3; --buffer: #7aa6d6; --optimizer_state: #7b5aa6; --gradient: #b3477d; --activation: #d9822b;
  --input: #3f9a8a; --collective: #8a8f2a; --workspace: #8c6d53; --temporary: #9aa1a9; --unknown: #6b8f71;
  --reserved: #1d1f21; --capacity: #c0392b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16181a; --ink: #e7e8ea; --quiet: #a0a6ad; --line: #3a3e43; --band: #24272b; --odd: #2f343a;
    --parameter: #5b9be0; --buffer: #8fb8e2; --optimizer_state: #a587d1; --gradient: #db74a6; --activation: #eda04f;
    --input: #62bdad; --collective: #b5ba52; --workspace: #b8967a; --temporary: #7e868e; --unknown: #8bb392;
    --reserved: #e7e8ea; --capacity: #ef6a5b;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 84rem; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { margin: 0 0 .6rem; font-size: 1.3rem; overflow-wrap: anywhere; }
dl { display: flex; flex-wrap: wrap; gap: .4rem 2rem; margin: 0 0 .8rem; }
dt { color: var(--quiet); font-size: .85rem; }
dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0 0 .6rem; padding: 0; list-style: none;
  font-size: .9rem; }
ul b { font-weight: 600; font-variant-numeric: tabular-nums; }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 2px; }
.key.reserved { height: 0; border-top: 2px solid var(--reserved); vertical-align: middle; }
.frame { display: grid; grid-template-columns: 5.2rem minmax(0, 1fr); }
.ticks { position: relative; font-size: .75rem; color: var(--quiet); }
.ticks span { position: absolute; right: .5rem; transform: translateY(50%); white-space: nowrap; }
.chart { position: relative; height: min(60vh, 30rem); border: 1px solid var(--line); border-width: 0 0 1px 1px;
  touch-action: pan-y; cursor: crosshair; }
.chart svg { display: block; width: 100%; height: 100%; }
.chart path { vector-effect: non-scaling-stroke; }
path.reserved { fill: none; stroke: var(--reserved); stroke-width: 1.5; }
path.capacity { fill: none; stroke: var(--capacity); stroke-width: 1.5; stroke-dasharray: 6 4; }
.cursor { position: absolute; top: 0; bottom: 0; width: 0; border-left: 1px solid var(--ink); pointer-events: none; }
.phases { position: relative; grid-column: 2; height: 1.5rem; }
.phase { position: absolute; top: 2px; bottom: 0; padding: 0 .25rem; overflow: hidden; background: var(--band);
  border-left: 1px solid var(--page); font-size: .75rem; line-height: 1.4rem; white-space: nowrap;
  text-overflow: ellipsis; }
.phase.odd { background: var(--odd); }
input { grid-column: 2; width: 100%; margin: .3rem 0; accent-color: var(--parameter); }
.now { min-height: 16rem; }
.now h2 { margin: .4rem 0; font-size: 1rem; font-variant-numeric: tabular-nums; }
.now ol { margin: 0; padding: 0; list-style: none; font-size: .9rem; }
.now li { display: grid; grid-template-columns: 8rem 9rem minmax(0, 1fr); gap: 0 .8rem; padding: .2rem 0;
  border-top: 1px solid var(--line); }
.now .size { text-align: right; font-variant-numeric: tabular-nums; }
.now code { overflow-wrap: anywhere; font: .85rem/1.4 ui-monospace, monospace; }
.now .place { display: block; color: var(--quiet); }
@media (max-width: 40rem) {
  .frame { grid-template-columns: 4.2rem minmax(0, 1fr); }
  .now li { grid-template-columns: 8rem minmax(0, 1fr); }
  .now code { grid-column: 1 / 3; }
}
.c-parameter { fill: var(--parameter); background: var(--parameter); }
.c-buffer { fill: var(--buffer); background: var(--buffer); }
.c-optimizer_state { fill: var(--optimizer_state); background: var(--optimizer_state); }
.c-gradient { fill: var(--gradient); background: var(--gradient); }
.c-activation { fill: var(--activation); background: var(--activation); }
.c-input { fill: var(--input); background: var(--input); }
.c-collective { fill: var(--collective); background: var(--collective); }
.c-workspace { fill: var(--workspace); background: var(--workspace); }
.c-temporary { fill: var(--temporary); background: var(--temporary); }
.c-unknown { fill: var(--unknown); background: var(--unknown); }
</style>
</head>
<body>
<h1>@title@</h1>
<dl>@facts@</dl>
<ul aria-label="What lies at the peak">@legend@</ul>
<div class="frame">
<div class="ticks" aria-hidden="true">@ticks@</div>
<div class="chart"><svg viewBox="0 0 @width@ @height@" preserveAspectRatio="none" role="img"
  aria-label="Allocated memory by category over time">@shapes@</svg><div class="cursor"></div></div>
<div class="phases" aria-hidden="true">@steps@</div>
<div class="phases" aria-hidden="true">@phases@</div>
<input type="range" min="0" max="@last@" value="@peak@" aria-label="Moment">
</div>
<section class="now" aria-live="polite"></section>
<script type="application/json" id="texts">@data@</script>
<script>
'use strict';
const texts = JSON.parse(document.getElementById('texts').textContent);
const chart = document.querySelector('.chart'), cursor = document.querySelector('.cursor');
const range = document.querySelector('input'), now = document.querySelector('.now');
const make = (name, kind, text) => {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  if (text) element.textContent = text;
  return element;
};
const show = index => {
  const [head, rows] = texts.times[index], list = make('ol');
  for (const [size, line] of rows) {
    const [kind, category, what, place] = texts.lines[line], row = make('li'), label = make('span');
    label.append(make('i', 'key c-' + kind), category);
    const code = make('code', '', what);
    code.append(make('span', 'place', place));
    row.append(make('span', 'size', size), label, code);
    list.append(row);
  }
  now.replaceChildren(make('h2', '', head), list);
  range.value = index;
  cursor.style.left = 100 * (index + 0.5) / texts.times.length + '%';
};
const follow = event => {
  const box = chart.getBoundingClientRect();
  const index = Math.floor((event.clientX - box.left) / box.width * texts.times.length);
  show(Math.max(0, Math.min(texts.times.length - 1, index)));
};
chart.addEventListener('pointermove', follow);
chart.addEventListener('pointerdown', follow);
range.addEventListener('input', () => show(Number(range.value)));
show(Number(range.value));
</script>
</body>
</html>
"""
