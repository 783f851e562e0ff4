"""Line charts as inline SVG: no script is needed to read them, colours come from the page's style sheet."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator

from framework.report.templates import macros

WIDTH, HEIGHT = 440, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 26
COLORS = 8
"""Lines that are told apart by colour; the next ones are dashed."""
_FEW_LINES = 4
_MOST_POINTS = 400
_MOST_DOTS = 12
_SMOOTHED_FROM = 100
"""Points from which on a curve is drawn faintly, with its moving average over it."""

Points = Sequence[tuple[int, float]]
"""(optimizer step, value), by step."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve.

    Attributes:
        name: shown in the legend.
        points: values that are not finite make a gap.
        color: number of its colour, from 0; by default its place among the lines.
    """

    name: str
    points: Points
    color: int | None = None


def line_style(number: int) -> str:
    """The classes of the line of a number, from 0, in the page's style sheet."""
    return f"s{number % COLORS + 1}" + (" dashed" if number // COLORS % 2 else "")


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """A range of values and the pixels it is drawn on."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True, kw_only=True)
class _Tick:
    """A labelled value on an axis, and its pixel."""

    value: float
    place: float


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """A line as it is drawn.

    Attributes:
        style: classes.
        path: of the line, or of its moving average.
        faint_path: of the line itself, where the moving average is drawn over it; or empty.
        dots: pixels of its points, where these are few.
    """

    style: str
    path: str
    faint_path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """All that the template draws; lengths in pixels.

    Attributes:
        label: for readers that cannot see it.
        data, frame: points of the lines, and where the steps lie: for the page's script.
        value_ticks, step_ticks: of both axes.
        restarts: where a later start took over.
        curves: the lines.
    """

    label: str
    data: list[dict[str, object]]
    frame: dict[str, float]
    value_ticks: list[_Tick]
    step_ticks: list[_Tick]
    restarts: list[float]
    curves: list[_Curve]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def chart(
    lines: Sequence[Line],
    *,
    restarts: Sequence[int] = (),
    label: str = "",
    from_zero: bool = False,
    log_ratio: float = 30.0,
) -> Markup:
    """An SVG of curves over optimizer steps.

    Args:
        lines: of more than four only the moving average is drawn where there are many points.
        restarts: steps at which a later start took over; thin upright lines.
        label: for readers that cannot see it.
        from_zero: the value axis begins at zero, where no value is below.
        log_ratio: positive values that span more than this are drawn on a logarithmic axis.
    """
    template = macros("framework.report", "chart.svg.jinja")
    finite = [[(s, v) for s, v in line.points if math.isfinite(v)] for line in lines]
    values = [v for points in finite for _, v in points]
    if not values:
        return template.nothing()
    steps = [s for points in finite for s, _ in points]
    across = _Axis(low=min(steps), high=max(max(steps), min(steps) + 1), start=_LEFT, end=WIDTH - _RIGHT)
    up = _value_axis(values, from_zero=from_zero, log_ratio=log_ratio)
    value_ticks = log_ticks(up.low, up.high) if up.log else ticks(up.low, up.high, 4)
    faint = len(lines) <= _FEW_LINES
    plot = _Plot(
        label=label,
        data=[{"name": line.name, "points": _shown(points)} for line, points in zip(lines, finite, strict=True)],
        frame={"low": across.low, "high": across.high, "left": _LEFT, "right": WIDTH - _RIGHT, "width": WIDTH},
        value_ticks=[_Tick(value=value, place=up.place(value)) for value in value_ticks],
        step_ticks=[
            _Tick(value=value, place=across.place(value)) for value in ticks(across.low, across.high, 5, whole=True)
        ],
        restarts=[across.place(step) for step in restarts if across.low <= step <= across.high],
        curves=[
            _curve(line, number if line.color is None else line.color, across, up, faint=faint)
            for number, line in enumerate(lines)
        ],
    )
    return template.chart(plot)


def _shown(points: Points) -> list[tuple[int, float]]:
    """What the script shows: values in more digits than anybody reads, and no more."""
    return [(step, float(f"{value:.6g}")) for step, value in thinned_points(points)]


def _value_axis(values: Sequence[float], *, from_zero: bool, log_ratio: float) -> _Axis:
    """An axis with room for all values.

    Args:
        values: finite, of all lines.
        from_zero: it begins at zero, where no value is below.
        log_ratio: positive values that span more than this make it logarithmic.
    """
    low, high = min(values), max(values)
    log = not from_zero and low > 0 and high / low > log_ratio
    if log:
        low, high = low / 1.1, high * 1.1
    elif from_zero and low >= 0:
        low, high = 0.0, 1.12 * high or 1.0
    elif low == high:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    else:
        margin = 0.06 * (high - low)
        # What counts from zero is shown from zero, where that wastes little room.
        low = 0.0 if 0 <= low < 0.4 * high else low - margin
        high += margin
    return _Axis(low=low, high=high, start=HEIGHT - _BOTTOM, end=_TOP, log=log)


def _curve(line: Line, color: int, across: _Axis, up: _Axis, *, faint: bool) -> _Curve:
    """A line in pixels.

    Args:
        line: as it is given.
        color: number of its colour, from 0.
        across: axis of the steps.
        up: axis of the values.
        faint: the line itself is drawn too where its moving average is.
    """
    points = [(step, value) for step, value in line.points if math.isfinite(value)]
    gaps = [step for step, value in line.points if not math.isfinite(value)]
    kept = thinned_points(points)
    path, faint_path = _path(kept, gaps, across, up), ""
    smoothed = len(points) > _SMOOTHED_FROM
    if smoothed:
        path, faint_path = _path(thinned_points(_moving_average(points)), gaps, across, up), path if faint else ""
    dots = () if smoothed or len(kept) > _MOST_DOTS else tuple((across.place(s), up.place(v)) for s, v in kept)
    return _Curve(style=line_style(color), path=path, faint_path=faint_path, dots=dots)


def _path(points: Points, gaps: Sequence[int], across: _Axis, up: _Axis) -> str:
    """The `d` of an SVG path.

    Args:
        points: finite ones.
        gaps: steps between which the path is broken.
        across: axis of the steps.
        up: axis of the values.
    """
    words, before = [], None
    for step, value in points:
        broken = before is None or any(before < gap < step for gap in gaps)
        words.append(f"{'M' if broken else 'L'}{across.place(step):.1f},{up.place(value):.1f}")
        before = step
    return " ".join(words)


def _moving_average(points: Points) -> list[tuple[int, float]]:
    """The mean around each point, over a fortieth of them all, and over fewer near the ends."""
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    reach, found = max(1, len(points) // 80), []
    for place, (step, _) in enumerate(points):
        half = min(reach, place, len(points) - 1 - place)
        found.append((step, (sums[place + half + 1] - sums[place - half]) / (2 * half + 1)))
    return found


def thinned_points(points: Points) -> list[tuple[int, float]]:
    """Few points that look like many: of each stretch its first, lowest, highest and last."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    kept: list[tuple[int, float]] = []
    num = _MOST_POINTS // 4
    for place in range(num):
        stretch = points[place * len(points) // num : (place + 1) * len(points) // num]
        chosen = {0, len(stretch) - 1}
        chosen.add(min(range(len(stretch)), key=lambda i: stretch[i][1]))
        chosen.add(max(range(len(stretch)), key=lambda i: stretch[i][1]))
        kept += [stretch[i] for i in sorted(chosen)]
    return kept


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round numbers between two values: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: lower end of the range.
        high: upper end.
        most: intervals between them.
        whole: whole numbers only.
    """
    found = MaxNLocator(most, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
    return list(_within(found, low, high))


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two positive values, with their doubles and fives where these are few."""
    decades = math.log10(high / low)
    found = LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,), numticks=8).tick_values(low, high)
    return list(_within(found, low, high))


def _within(values: Sequence[float], low: float, high: float) -> Iterator[float]:
    """The values of a range, a rounding at its ends included."""
    # Locators go one beyond each end; a tick at an end may be off by a rounding.
    margin = 1e-9 * (high - low)
    return (round(float(value), 12) + 0.0 for value in values if low - margin <= value <= high + margin)
