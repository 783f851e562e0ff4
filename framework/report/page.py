"""One page about a run, from its folder alone; nothing in it is fetched from anywhere."""

import base64
import io
import math
from collections.abc import Sequence
from datetime import datetime
from html import escape
from itertools import pairwise
from pathlib import Path

import yaml
from PIL import Image

from framework.cli.runs import Run
from framework.gbc.tracking import report_section as agents
from framework.gbc.tracking.credit_html import STYLE
from framework.report.charts import Line, chart, short
from framework.report.style import CSS, SCRIPT
from framework.tracking import metric_names as metrics
from framework.tracking.images import evenly_spaced, list_images
from framework.tracking.metric_files import Series, read_metrics
from framework.tracking.restarts import Restart
from framework.tracking.run_folder import RECIPE
from framework.tracking.secrets import scrubbed_text, scrubbed_yaml

SAMPLES = "samples"
_MOST_PICTURES = 12
_MOST_PIXELS = 640
_SECTIONS = {
    "Loss": ("loss", "validation"),
    "Speed and memory": ("throughput", "time", "memory", "checkpoint"),
    "Optimizer and guards": ("optimizer", "guards", "data"),
}
_FROM_ZERO = {"throughput", "time", "memory", "checkpoint", "guards", "data"}
_LOSS_LOG_RATIO = 6.0
_SPELLED = {"gib": "GiB", "flops": "FLOPs", "mse": "MSE", "kl": "KL", "l1": "L1"}


def page(run: Run) -> str:
    """The HTML page of a run."""
    series = read_metrics(run.folder)
    restarts = [restart.start.step for restart in run.restarts[1:]]
    name = escape(run.folder.resolve().name)
    sections = [
        _head(run, name),
        _tiles(run, series),
        agents.agent_curves(series, restarts),
        agents.blame(run.folder),
        agents.prompts(run.folder),
        _curves({name: values for name, values in series.items() if not agents.is_by_agent(name)}, restarts),
        _pictures(run.folder),
        _starts(run),
        _environment(run),
        _recipe(run.folder),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>{name}</title><style>{CSS}{STYLE}</style></head>\n<body>\n{''.join(sections)}\n"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _text(value: object) -> str:
    return escape(scrubbed_text(str(value)))


def _head(run: Run, name: str) -> str:
    steps = f"Step {run.step:,}" + (f" of {run.max_steps:,}" if run.max_steps else "")
    facts = [steps]
    if run.restarts:
        count = len(run.restarts)
        facts.append(f"{count} start{'s' if count > 1 else ''} since {_moment(run.restarts[0].start.time)} UTC")
    if run.checkpoints:
        facts.append(f"newest checkpoint at step {run.checkpoints[-1]:,}")
    if run.wandb_id:
        facts.append(f"W&amp;B id <code>{_text(run.wandb_id)}</code>")
    why = f'<p class="lead">{_text(run.reason)}</p>' if run.reason else ""
    return (
        f'<header><div class="head"><h1>{name}</h1><span class="state {run.state}">{run.state}</span></div>'
        f'<p class="lead">{", ".join(facts)}.</p>{why}</header>\n'
    )


def _moment(time: str) -> str:
    return escape(time[:16].replace("T", " "))


def _tiles(run: Run, series: dict[str, Series]) -> str:
    tiles = []

    def add(label: str, value: str) -> None:
        tiles.append(f'<div class="tile"><b>{value}</b><span>{label}</span></div>')

    def last(name: str) -> float | None:
        values = [v for _, v in sorted(series.get(name, {}).items()) if math.isfinite(v)]
        return values[-1] if values else None

    if (loss := last("loss/total")) is not None:
        add("training loss", short(loss))
    best = min(((v, s) for s, v in series.get("validation/total", {}).items() if math.isfinite(v)), default=None)
    if best is not None:
        add(f"best validation loss, step {best[1]:,}", short(best[0]))
    for name, label in (
        (metrics.IMAGES_PER_SECOND, "images per second"),
        (metrics.TASKS_PER_SECOND, "tasks per second"),
        (metrics.TOKENS_PER_SECOND, "tokens per second"),
    ):
        if (value := last(name)) is not None:
            add(label, f"{value:,.0f}" if 1e3 <= value < 1e7 else short(value))
    if (share := last(metrics.MODEL_FLOPS_UTILISATION)) is not None:
        add("model FLOPs utilisation", f"{100 * share:.1f}%")
    wait, seconds = last(metrics.DATA_WAIT_SECONDS), last(metrics.BATCH_SECONDS)
    if wait is not None and seconds:
        add("of a batch's time waits for data", f"{100 * wait / seconds:.1f}%")
    if (memory := last(metrics.MEMORY_PEAK_GIB)) is not None:
        add("GiB memory at the peak", short(memory))
    if (stall := last(metrics.CHECKPOINT_STALL_SECONDS)) is not None:
        add("seconds of stall a checkpoint", short(round(stall, 3)))
    return f'<div class="tiles">{"".join(tiles)}</div>\n' if tiles else ""


def _curves(series: dict[str, Series], restarts: Sequence[int]) -> str:
    section_of = {prefix: (title, place) for title, all_ in _SECTIONS.items() for place, prefix in enumerate(all_)}
    groups: dict[str, list[tuple[int, bool, str]]] = {title: [] for title in _SECTIONS}
    for name in series:
        prefix, _, rest = name.partition("/")
        if prefix == "validation" and f"loss/{rest}" in series:
            continue
        title, place = section_of.get(prefix, (prefix.replace("_", " ").capitalize(), 0))
        # The sum of the losses first.
        groups.setdefault(title, []).append((place, rest != "total", name))
    parts = []
    for title, names in groups.items():
        cards = "".join(_card(name, series, restarts) for _, _, name in sorted(names))
        if cards:
            parts.append(f'<section><h2>{_text(title)}</h2><div class="cards">{cards}</div></section>\n')
    if not parts:
        return '<p class="none">No metrics yet.</p>\n'
    if restarts:
        note = "Dotted upright lines mark where a later start took over; of steps taken twice the later value is shown."
        parts.append(f'<p class="none">{note}</p>\n')
    return "".join(parts)


def _card(name: str, series: dict[str, Series], restarts: Sequence[int]) -> str:
    lines = [Line(name=name, points=sorted(series[name].items()))]
    prefix, _, rest = name.partition("/")
    legend = ""
    if prefix == "loss" and (other := series.get(f"validation/{rest}")):
        lines = [
            Line(name="training", points=lines[0].points),
            Line(name="validation", points=sorted(other.items())),
        ]
        keys = (f'<span><i class="s{n}"></i>{line.name}</span>' for n, line in enumerate(lines, start=1))
        legend = f'<div class="legend">{"".join(keys)}</div>'
    title = _text(" ".join(_SPELLED.get(word, word) for word in rest.split("_")) or name)
    step, value = lines[0].points[-1]
    drawn = chart(
        lines,
        restarts=restarts,
        label=f"{name} by optimizer step",
        from_zero=prefix in _FROM_ZERO,
        log_ratio=_LOSS_LOG_RATIO if prefix in ("loss", "validation") else 30.0,
    )
    return (
        f'<div class="card"><div class="title"><h3>{title}</h3><span class="now">{short(value)} at step {step}</span>'
        f"</div>{legend}{drawn}</div>"
    )


def _pictures(folder: Path) -> str:
    pictures = list_images(folder / SAMPLES)
    figures = []
    for step in evenly_spaced(list(pictures), _MOST_PICTURES):
        try:
            data = base64.b64encode(_small_png(pictures[step])).decode()
        except OSError:
            continue  # A killed process left a piece of it.
        alt = f"samples at step {step}"
        figures.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{alt}">'
            f"<figcaption>step {step:,}</figcaption></figure>"
        )
    if not figures:
        return ""
    return f'<section><h2>Samples over time</h2><div class="pictures">{"".join(figures)}</div></section>\n'


def _small_png(path: Path) -> bytes:
    """A picture as PNG, no larger than the page needs."""
    with Image.open(path) as image:
        image.load()
        image.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
        data = io.BytesIO()
        image.save(data, format="PNG", optimize=True)
    return data.getvalue()


def _starts(run: Run) -> str:
    if not run.restarts:
        return ""
    head = (
        "<tr><th>start</th><th>UTC</th><th>lasted</th><th class='number'>from step</th><th class='number'>to step</th>"
        "<th>end</th><th class='number'>processes</th><th>host</th><th>why</th></tr>"
    )
    rows = []
    for restart in run.restarts:
        start, end, outcome = restart.start, restart.end, _outcome(run, restart)
        lasted = _duration((_time(end.time) - _time(start.time)).total_seconds()) if end else ""
        rows.append(
            f"<tr><td>{start.restart}</td><td>{_moment(start.time)}</td><td>{lasted}</td>"
            f'<td class="number">{start.step:,}</td><td class="number">{f"{end.step:,}" if end else ""}</td>'
            f'<td><span class="outcome {outcome}">{outcome}</span></td><td class="number">{start.world_size}</td>'
            f'<td>{_text(start.host)}</td><td class="text">{_text(end.message) if end else ""}</td></tr>'
        )
    table = f"<table>{head}{''.join(rows)}</table>"
    return f'<section><h2>Starts</h2><div class="card wide">{_timeline(run)}{table}</div></section>\n'


def _outcome(run: Run, restart: Restart) -> str:
    if restart.end:
        return restart.end.outcome
    return "running" if run.state == "running" and restart is run.restarts[-1] else "killed"


def _timeline(run: Run) -> str:
    """When the run ran, as far as its starts tell: one whose end is not known is drawn until the next."""
    begins = [_time(restart.start.time) for restart in run.restarts]
    ends = [_time(restart.end.time) if restart.end else None for restart in run.restarts]
    last = max([*begins, *(end for end in ends if end)])
    span = (last - begins[0]).total_seconds()
    if len(run.restarts) < 2 or span <= 0:
        return ""
    bars = ['<rect class="idle" x="0" y="0" width="1000" height="14"/>']
    for restart, (begin, following), end in zip(run.restarts, pairwise([*begins, last]), ends, strict=True):
        x = 1000 * (begin - begins[0]).total_seconds() / span
        # A gap between neighbours, and a bar even for a moment.
        width = max(1000 * ((end or following) - begin).total_seconds() / span - 1.5, 1.5)
        outcome = _outcome(run, restart)
        bars.append(
            f'<rect class="{outcome}" x="{x:.1f}" y="0" width="{width:.1f}" height="14">'
            f"<title>start {restart.start.restart}, {outcome}</title></rect>"
        )
    return f'<svg class="timeline" viewBox="0 0 1000 14" preserveAspectRatio="none">{"".join(bars)}</svg>'


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _environment(run: Run) -> str:
    if not run.restarts:
        return ""
    start = run.restarts[-1].start
    facts = {
        "command": f"<code>{_text(start.command)}</code>",
        "git revision": f"<code>{_text(start.git_revision or 'not known')}</code>",
        "device": _text(f"{start.world_size} x {start.device}"),
        "container": _text(start.container or "none was named"),
        "Python": _text(start.python),
        **{escape(name): _text(version) for name, version in start.packages.items()},
    }
    rows = "".join(
        f'<tr><td class="name">{name}</td><td class="text">{value}</td></tr>' for name, value in facts.items()
    )
    return (
        f'<section><h2>Environment of the last start</h2><div class="card wide"><table>{rows}</table></div></section>\n'
    )


def _recipe(folder: Path) -> str:
    file = folder / RECIPE
    if not file.is_file():
        return ""
    text = file.read_text(errors="replace")
    try:
        text = scrubbed_yaml(text)
    except yaml.YAMLError:
        # No recipe of ours, or a piece of one.
        text = scrubbed_text(text)
    return (
        '<section><h2>Recipe</h2><div class="card wide"><details><summary>as it was resolved, every setting</summary>'
        f"<pre>{escape(text)}</pre></details></div></section>\n"
    )
