"""The page's style sheet and its only script, which shows the values under the pointer."""

CSS = """
:root { color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1d1f23; --soft: #5d636e; --faint: #8d939d; --rule: #e4e4e0; --grid: #ecece8;
  --s1: #2767b8; --s2: #c4622d; --s3: #3d8a5f; --s4: #8355a6;
  --s5: #c2397f; --s6: #1f97a6; --s7: #9a7b12; --s8: #5d636e;
  --running: #1a7f9c; --finished: #2f7d4f; --preempted: #a66a00; --failed: #b3372f; --unknown: #6b7079; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16181b; --card: #1e2125; --ink: #e6e7e9; --soft: #a6abb4; --faint: #7d838d; --rule: #2d3136; --grid: #282b30;
  --s1: #6ea8ec; --s2: #e59a68; --s3: #74c096; --s4: #b994da;
  --s5: #ec86b6; --s6: #63c7d3; --s7: #d3b650; --s8: #a6abb4;
  --running: #5fbdd8; --finished: #6fc08f; --preempted: #e0ae54; --failed: #ec8078; --unknown: #a0a5ad; } }
* { box-sizing: border-box; }
html { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
  background: var(--page); color: var(--ink); font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
body { max-width: 1180px; margin: 0 auto; padding: 44px 28px 72px; }
h1 { font-size: 1.75rem; line-height: 1.2; font-weight: 600; letter-spacing: -0.015em; margin: 0; }
h2 { font-size: 1.05rem; font-weight: 600; margin: 48px 0 14px; }
h3 { font-size: 0.82rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
a { color: inherit; }
.head { display: flex; align-items: center; gap: 14px; flex-wrap: wrap; }
.state { font-size: 0.8rem; font-weight: 600; padding: 2px 11px; border-radius: 99px; color: var(--c);
  border: 1px solid color-mix(in srgb, var(--c) 45%, transparent);
  background: color-mix(in srgb, var(--c) 10%, transparent); }
.running { --c: var(--running); } .finished { --c: var(--finished); } .preempted { --c: var(--preempted); }
.failed, .killed { --c: var(--failed); } .unknown { --c: var(--unknown); }
.lead { color: var(--soft); margin: 8px 0 0; max-width: 110ch; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 12px; margin: 28px 0 0; }
.tile, .card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.tile { padding: 13px 16px 12px; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.25; font-weight: 600; letter-spacing: -0.01em; }
.tile span { color: var(--soft); font-size: 0.8rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr)); gap: 14px; }
.card { padding: 14px 14px 8px; min-width: 0; }
.card.wide { padding: 16px; overflow-x: auto; }
.title { display: flex; justify-content: space-between; gap: 12px; align-items: baseline; padding: 0 2px 6px; }
.now { color: var(--soft); font-size: 0.78rem; white-space: nowrap; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 0.78rem; color: var(--soft); padding: 0 2px 6px; }
.legend i { display: inline-block; width: 14px; height: 2px; border-radius: 2px; vertical-align: 3px;
  margin-right: 6px; }
.key { cursor: default; white-space: nowrap; } .key b { font-weight: 500; color: var(--ink); }
.others .curve:not(.chosen) { opacity: 0.12; } .chosen .line { stroke-width: 2.6; }
.cards.large { grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); }
.graph { display: block; width: 100%; height: auto; max-height: 640px; background: #ffffff; border-radius: 6px; }
.chart { display: block; width: 100%; height: auto; overflow: visible; touch-action: pan-y; }
.grid { stroke: var(--grid); stroke-width: 1; }
.tick { fill: var(--faint); font-size: 11px; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round;
  vector-effect: non-scaling-stroke; }
.line.faint { opacity: 0.24; stroke-width: 1; }
.s1 { --line: var(--s1); } .s2 { --line: var(--s2); } .s3 { --line: var(--s3); } .s4 { --line: var(--s4); }
.s5 { --line: var(--s5); } .s6 { --line: var(--s6); } .s7 { --line: var(--s7); } .s8 { --line: var(--s8); }
.line { stroke: var(--line); } .line.dashed { stroke-dasharray: 5 4; }
.dots { fill: var(--line); }
.legend i { background: var(--line); }
.legend i.dashed { background: repeating-linear-gradient(90deg, var(--line) 0 5px, transparent 5px 8px); }
.restart { stroke: var(--preempted); stroke-width: 1; stroke-dasharray: 2 3; opacity: 0.85; }
.cursor { stroke: var(--faint); stroke-width: 1; visibility: hidden; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); gap: 18px 14px; }
figure { margin: 0; } figure img { display: block; width: 100%; image-rendering: pixelated; border-radius: 6px;
  border: 1px solid var(--rule); }
figcaption { color: var(--soft); font-size: 0.8rem; padding-top: 5px; }
table { border-collapse: collapse; width: 100%; font-size: 0.86rem; }
th { text-align: left; font-weight: 500; color: var(--soft); padding: 0 16px 7px 0; white-space: nowrap; }
td { padding: 7px 16px 7px 0; border-top: 1px solid var(--rule); vertical-align: top; white-space: nowrap; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 16ch; }
td.number, th.number { text-align: right; }
td.name { color: var(--soft); width: 1%; }
.outcome { color: var(--c); font-weight: 500; }
.timeline { display: block; width: 100%; height: 14px; margin-bottom: 18px; border-radius: 4px; }
.timeline rect { fill: var(--c); opacity: 0.8; }
.timeline .idle { fill: var(--grid); opacity: 1; }
code, pre { font: 0.82rem/1.5 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
section > .lead { margin: -6px 0 12px; }
.prompts td:not(.text) { width: 1%; }
.decision { --c: var(--unknown); color: var(--c); font-weight: 500; }
.kept .decision { --c: var(--finished); }
del, ins { text-decoration: none; border-radius: 3px; padding: 0 1px; }
del { color: var(--failed); background: color-mix(in srgb, var(--failed) 13%, transparent);
  text-decoration: line-through; text-decoration-thickness: 1px; }
ins { color: var(--finished); background: color-mix(in srgb, var(--finished) 15%, transparent); }
details.card { margin: 0 0 12px; } details.card[open] { padding-bottom: 16px; }
details.card .episode h3 { display: none; }
details summary { cursor: pointer; color: var(--soft); font-size: 0.86rem; }
details[open] summary { margin-bottom: 12px; }
.none { color: var(--faint); font-size: 0.86rem; margin: 8px 2px; }
footer { margin-top: 56px; color: var(--faint); font-size: 0.8rem; }
@media (max-width: 600px) { body { padding: 28px 16px 48px; } }
@media print { html { background: none; } .card, .tile { break-inside: avoid; } }
"""

SCRIPT = """
for (const svg of document.querySelectorAll("svg.chart")) {
  const lines = JSON.parse(svg.dataset.lines), frame = JSON.parse(svg.dataset.frame);
  const card = svg.closest(".card"), told = card.querySelector(".now"), last = told.textContent;
  const cursor = svg.querySelector(".cursor");
  const keys = [...card.querySelectorAll(".key")], values = keys.map(key => key.querySelector("b"));
  const before = values.map(value => value.textContent);
  const show = value => Number(value).toPrecision(4).replace(/\\.?0+($|e)/, "$1");
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * frame.width;
    const share = Math.min(1, Math.max(0, (x - frame.left) / (frame.right - frame.left)));
    const step = frame.low + share * (frame.high - frame.low);
    const near = lines.map(line => line.points.length ? line.points.reduce((a, b) =>
      Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a) : null);
    const some = near.filter(point => point), nearest = some.reduce((a, b) =>
      Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a)[0];
    const place = frame.left + (nearest - frame.low) / (frame.high - frame.low) * (frame.right - frame.left);
    cursor.setAttribute("x1", place); cursor.setAttribute("x2", place); cursor.style.visibility = "visible";
    // A curve of its own for each name in the legend: the values stand there, where there is one at this step.
    values.forEach((value, index) => {
      value.textContent = near[index] && near[index][0] === nearest ? show(near[index][1]) : "\u2013";
    });
    told.textContent = (keys.length ? "" : some.map(point => show(point[1])).join(" / ") + " ") + "at step " + nearest;
  });
  svg.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden"; told.textContent = last;
    values.forEach((value, index) => { value.textContent = before[index]; });
  });
  keys.forEach((key, index) => {
    const curve = svg.querySelector(`[data-line="${index}"]`);
    const choose = chosen => { svg.classList.toggle("others", chosen); curve.classList.toggle("chosen", chosen); };
    key.addEventListener("pointerenter", () => choose(true));
    key.addEventListener("pointerleave", () => choose(false));
  });
}
"""
