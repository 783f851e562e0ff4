"""One page about a run, from its folder alone; nothing in it is fetched from anywhere."""

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from framework.core.errors import ConfigError
from framework.core.imports import import_object
from framework.core.method import Method
from framework.report.charts import Line, chart
from framework.report.formatting import duration, moment, seconds_between, short
from framework.report.run_summary import Run, headline
from framework.report.section import Section
from framework.report.templates import environment, macros
from framework.tracking import metric_names as metrics
from framework.tracking.data_identity import read_data
from framework.tracking.images import evenly_spaced, list_images
from framework.tracking.metric_files import Series, read_metrics
from framework.tracking.restarts import End, Restart, Start
from framework.tracking.run_folder import RECIPE
from framework.tracking.secrets import scrubbed_text, scrubbed_yaml

SAMPLES = "samples"
_PACKAGE = "framework.report"
_MOST_IMAGES = 12
_MOST_PIXELS = 640
_MOST_CLASSES = 100
_GROUPS = {
    "Loss": ("loss", "validation"),
    "Speed and memory": ("throughput", "time", "memory", "checkpoint"),
    "Optimizer and guards": ("optimizer", "guards", "data"),
}
_FROM_ZERO = {"throughput", "time", "memory", "checkpoint", "guards", "data"}
_LOSS_LOG_RATIO = 6.0
_SPELLED = {"gib": "GiB", "flops": "FLOPs", "mse": "MSE", "kl": "KL", "l1": "L1"}


def page(run: Run, methods: Sequence[Method]) -> str:
    """The HTML page of a run.

    Args:
        run: as its folder shows it.
        methods: whose sections may be on it.
    """
    series = read_metrics(run.folder)
    sections = list(report_sections(run, series, methods))
    return (
        environment(_PACKAGE)
        .get_template("page.html.jinja")
        .render(
            name=run.folder.resolve().name,
            run=run,
            facts=_facts(run),
            tiles=list(_tiles(headline(run, methods), series)),
            sections=sections,
            styles=list(dict.fromkeys(section.style for section in sections if section.style)),
        )
    )


def report_sections(run: Run, series: Mapping[str, Series], methods: Sequence[Method]) -> Iterator[Section]:
    """The page's sections in their order: those of the methods first, then those that every run has.

    Args:
        run: as its folder shows it.
        series: every metric's values by step.
        methods: each looks for what it knows.
    """
    restarts = [restart.start.step for restart in run.restarts[1:]]
    reports = [import_object(method.report) for method in methods if method.report is not None]
    of_methods: list[Section] = [section for report in reports for section in report(run.folder, series, restarts)]
    yield from of_methods
    shown = frozenset[str]().union(*(section.metrics for section in of_methods))
    yield from _curves({name: values for name, values in series.items() if name not in shown}, restarts)
    yield from _samples(run.folder)
    yield from _data(run.folder)
    yield from _starts(run)
    yield from _recipe(run.folder)


def _section(title: str, macro: str, *arguments: object) -> Section:
    return Section(title=title, body=getattr(macros(_PACKAGE, "sections.html.jinja"), macro)(*arguments))


def _facts(run: Run) -> list[str]:
    facts = [f"Step {run.step:,}" + (f" of {run.max_steps:,}" if run.max_steps else "")]
    if run.restarts:
        count = len(run.restarts)
        facts.append(f"{count} start{'s' if count > 1 else ''} since {moment(run.restarts[0].start.time)} UTC")
    if run.checkpoints:
        facts.append(f"newest checkpoint at step {run.checkpoints[-1]:,}")
    return facts


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A number that stands out.

    Attributes:
        label: what it is, with its unit.
        value: it, as it is shown.
    """

    label: str
    value: str


def _tiles(method: Method | None, series: Mapping[str, Series]) -> Iterator[Tile]:
    """The last and the best values that matter most."""
    method = method or Method(name="unknown", description="")

    def last(name: str) -> float | None:
        values = [v for _, v in sorted(series.get(name, {}).items()) if math.isfinite(v)]
        return values[-1] if values else None

    if (loss := last(method.loss)) is not None:
        yield Tile(label="training loss", value=short(loss))
    best = min(((v, s) for s, v in series.get(method.validation_loss, {}).items() if math.isfinite(v)), default=None)
    if best is not None:
        yield Tile(label=f"best validation loss, step {best[1]:,}", value=short(best[0]))
    for name, label in (
        (metrics.samples_per_second(method.sample_unit), f"{method.sample_unit}s per second"),
        (metrics.TOKENS_PER_SECOND, "tokens per second"),
    ):
        if (value := last(name)) is not None:
            yield Tile(label=label, value=f"{value:,.0f}" if 1e3 <= value < 1e7 else short(value))
    if (share := last(metrics.MODEL_FLOPS_UTILISATION)) is not None:
        yield Tile(label="model FLOPs utilisation", value=f"{100 * share:.1f}%")
    wait, seconds = last(metrics.DATA_WAIT_SECONDS), last(metrics.BATCH_SECONDS)
    if wait is not None and seconds:
        yield Tile(label="of a batch's time waits for data", value=f"{100 * wait / seconds:.1f}%")
    if (memory := last(metrics.MEMORY_PEAK_GIB)) is not None:
        yield Tile(label="GiB memory at the peak", value=short(memory))
    if (stall := last(metrics.CHECKPOINT_STALL_SECONDS)) is not None:
        yield Tile(label="seconds of stall a checkpoint", value=short(round(stall, 3)))


def _curves(series: Mapping[str, Series], restarts: Sequence[int]) -> Iterator[Section]:
    group_of = {prefix: (title, place) for title, all_ in _GROUPS.items() for place, prefix in enumerate(all_)}
    groups: dict[str, list[tuple[int, bool, str]]] = {title: [] for title in _GROUPS}
    for name in series:
        prefix, _, rest = name.partition("/")
        if prefix == "validation" and f"loss/{rest}" in series:
            continue
        title, place = group_of.get(prefix, (prefix.replace("_", " ").capitalize(), 0))
        # The sum of the losses first.
        groups.setdefault(title, []).append((place, rest != "total", name))
    cards = {title: [_card(name, series, restarts) for _, _, name in sorted(names)] for title, names in groups.items()}
    cards = {title: each for title, each in cards.items() if each}
    if not cards:
        yield _section("Metrics", "no_metrics")
    for number, (title, each) in enumerate(cards.items(), start=1):
        yield _section(title, "charts", each, bool(restarts) and number == len(cards))


@dataclass(frozen=True, kw_only=True)
class ChartCard:
    """A chart with its heading.

    Attributes:
        title: of the metric.
        step, value: its last value, and where.
        legend: names of the lines, where there are several.
        drawn: the chart.
    """

    title: str
    step: int
    value: float
    legend: tuple[str, ...]
    drawn: Markup


def _card(name: str, series: Mapping[str, Series], restarts: Sequence[int]) -> ChartCard:
    """The chart of a metric; of a loss with its validation loss.

    Args:
        name: of the metric.
        series: every metric's values by step.
        restarts: steps at which a later start took over.
    """
    lines = [Line(name=name, points=sorted(series[name].items()))]
    prefix, _, rest = name.partition("/")
    if prefix == "loss" and (other := series.get(f"validation/{rest}")):
        lines = [
            Line(name="training", points=lines[0].points),
            Line(name="validation", points=sorted(other.items())),
        ]
    step, value = lines[0].points[-1]
    return ChartCard(
        title=" ".join(_SPELLED.get(word, word) for word in rest.split("_")) or name,
        step=step,
        value=value,
        legend=tuple(line.name for line in lines) if len(lines) > 1 else (),
        drawn=chart(
            lines,
            restarts=restarts,
            label=f"{name} by optimizer step",
            from_zero=prefix in _FROM_ZERO,
            log_ratio=_LOSS_LOG_RATIO if prefix in ("loss", "validation") else 30.0,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class EmbeddedImage:
    """Samples as the page holds them.

    Attributes:
        step: optimizer step.
        data: PNG in base64.
    """

    step: int
    data: Markup


def _samples(folder: Path) -> Iterator[Section]:
    files, images = list_images(folder / SAMPLES), []
    for step in evenly_spaced(list(files), _MOST_IMAGES):
        try:
            data = base64.b64encode(_small_png(files[step])).decode()
        except OSError:
            continue  # A killed process left a piece of it.
        images.append(EmbeddedImage(step=step, data=Markup(data)))
    if images:
        yield _section("Samples over time", "samples", images)


def _small_png(path: Path) -> bytes:
    """An image as PNG, no larger than the page needs."""
    with Image.open(path) as image:
        image.load()
        image.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
        data = io.BytesIO()
        image.save(data, format="PNG", optimize=True)
    return data.getvalue()


def _data(folder: Path) -> Iterator[Section]:
    if (found := read_data(folder)) is not None:
        yield _section("Data", "data", found, _MOST_CLASSES)


@dataclass(frozen=True, kw_only=True)
class StartRow:
    """A start in the table.

    Attributes:
        start, end: as they were noted.
        outcome: how it ended, or `running` or `killed`.
        lasted: how long, where its end is known.
    """

    start: Start
    end: End | None
    outcome: str
    lasted: str


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A start in the timeline.

    Attributes:
        number: from 0 and without gaps, which restart counts of older runs have.
        outcome: how it ended, or `running` or `killed`.
        x, width: of 1000.
    """

    number: int
    outcome: str
    x: float
    width: float


def _starts(run: Run) -> Iterator[Section]:
    if not run.restarts:
        return
    rows = [
        StartRow(
            start=restart.start,
            end=restart.end,
            outcome=_outcome(run, restart),
            lasted=duration(seconds_between(restart.start.time, restart.end.time)) if restart.end else "",
        )
        for restart in run.restarts
    ]
    yield _section("Starts", "starts", rows, _timeline(run))
    yield _section("Environment of the last start", "environment", run.restarts[-1].start)


def _outcome(run: Run, restart: Restart) -> str:
    if restart.end:
        return restart.end.outcome
    return "running" if run.state == "running" and restart is run.restarts[-1] else "killed"


def _timeline(run: Run) -> list[Bar]:
    """When the run ran, as far as its starts tell: one whose end is not known is drawn until the next."""
    first = run.restarts[0].start.time
    begins = [seconds_between(first, restart.start.time) for restart in run.restarts]
    ends = [seconds_between(first, restart.end.time) if restart.end else None for restart in run.restarts]
    span = max([*begins, *(end for end in ends if end is not None)])
    if len(run.restarts) < 2 or span <= 0:
        return []
    bars = []
    places = zip(run.restarts, pairwise([*begins, span]), ends, strict=True)
    for number, (restart, (begin, following), end) in enumerate(places):
        # A gap between neighbours, and a bar even for a moment.
        width = max(1000 * ((following if end is None else end) - begin) / span - 1.5, 1.5)
        outcome = _outcome(run, restart)
        bars.append(Bar(number=number, outcome=outcome, x=1000 * begin / span, width=width))
    return bars


def _recipe(folder: Path) -> Iterator[Section]:
    file = folder / RECIPE
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        text = scrubbed_yaml(text)
    except ConfigError:
        # No recipe of ours, or a piece of one.
        text = scrubbed_text(text)
    yield _section("Recipe", "recipe", text)
