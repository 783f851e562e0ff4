"""Line charts as inline SVG: no library, no script needed, colours from the page's style sheet."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440.0, 210.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 10.0, 10.0, 26.0
COLORS = 8
"""Lines that are told apart by colour; the next ones are dashed."""
_FEW_LINES = 4
_MOST_POINTS = 400
_SMOOTHED_FROM = 100
"""Points from which on a curve is drawn faintly, with its moving average over it."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve.

    Attributes:
        name: shown in the legend.
        points: (step, value), by step; values that are not finite make a gap.
        color: number of its colour, from 0; by default its place among the lines.
    """

    name: str
    points: Sequence[tuple[int, float]]
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


def chart(
    lines: Sequence[Line],
    *,
    restarts: Sequence[int] = (),
    label: str = "",
    from_zero: bool = False,
    log_ratio: float = 30.0,
) -> str:
    """An SVG of curves over optimizer steps.

    Args:
        lines: of more than four only the moving average is drawn where there are many points.
        restarts: steps at which a later start took over; thin upright lines.
        label: for readers that cannot see it.
        from_zero: the value axis begins at zero, where no value is below.
        log_ratio: positive values that span more than this are drawn on a logarithmic axis.
    """
    finite = [[(s, v) for s, v in line.points if math.isfinite(v)] for line in lines]
    values = [v for points in finite for _, v in points]
    if not values:
        return '<p class="none">no finite values</p>'
    steps = [s for points in finite for s, _ in points]
    across = _Axis(low=min(steps), high=max(max(steps), min(steps) + 1), start=_LEFT, end=WIDTH - _RIGHT)
    up = _value_axis(values, from_zero=from_zero, log_ratio=log_ratio)
    parts = [_grid(across, up)]
    for step in restarts:
        if across.low <= step <= across.high:
            x = across.place(step)
            parts.append(f'<line class="restart" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
    for number, (line, points) in enumerate(zip(lines, finite, strict=True)):
        style = line_style(number if line.color is None else line.color)
        curve = _curve(line, points, across, up, style, faint=len(lines) <= _FEW_LINES)
        parts.append(f'<g class="curve" data-line="{number}">{curve}</g>')
    data = [{"name": line.name, "points": thinned_points(points)} for line, points in zip(lines, finite, strict=True)]
    frame = {"low": across.low, "high": across.high, "left": _LEFT, "right": WIDTH - _RIGHT, "width": WIDTH}
    attributes = f'data-lines="{escape(json.dumps(data))}" data-frame="{escape(json.dumps(frame))}"'
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{escape(label)}" '
        f"{attributes}>{''.join(parts)}"
        f'<line class="cursor" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" x1="0" x2="0"/></svg>'
    )


def _value_axis(values: Sequence[float], *, from_zero: bool, log_ratio: float) -> _Axis:
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


def _grid(across: _Axis, up: _Axis) -> str:
    parts = []
    for value in log_ticks(up.low, up.high) if up.log else ticks(up.low, up.high, 4):
        y = up.place(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{short(value)}</text>')
    for value in ticks(across.low, across.high, 5):
        if value != int(value):
            continue
        x = across.place(value)
        anchor = "end" if x > WIDTH - 24 else "middle"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{short(value)}</text>')
    return "".join(parts)


def _curve(
    line: Line, points: Sequence[tuple[int, float]], across: _Axis, up: _Axis, style: str, *, faint: bool
) -> str:
    kept = thinned_points(points)
    gaps = [s for s, v in line.points if not math.isfinite(v)]
    path = _path(kept, gaps, across, up)
    if len(points) > _SMOOTHED_FROM:
        mean = _path(thinned_points(_moving_average(points)), gaps, across, up)
        faintly = f'<path class="line {style} faint" d="{path}"/>' if faint else ""
        return f'{faintly}<path class="line {style}" d="{mean}"/>'
    curve = f'<path class="line {style}" d="{path}"/>'
    if len(kept) > 12:
        return curve
    dots = (f'<circle cx="{across.place(s):.1f}" cy="{up.place(v):.1f}" r="2.4"/>' for s, v in kept)
    return f'{curve}<g class="dots {style}">{"".join(dots)}</g>'


def _path(points: Sequence[tuple[int, float]], gaps: Sequence[int], across: _Axis, up: _Axis) -> str:
    words, before = [], None
    for step, value in points:
        broken = before is None or any(before < gap < step for gap in gaps)
        words.append(f"{'M' if broken else 'L'}{across.place(step):.1f},{up.place(value):.1f}")
        before = step
    return " ".join(words)


def _moving_average(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean around each point, over a fortieth of them all, and over fewer near the ends."""
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    reach, found = max(1, len(points) // 80), []
    for place, (step, _) in enumerate(points):
        half = min(reach, place, len(points) - 1 - place)
        found.append((step, (sums[place + half + 1] - sums[place - half]) / (2 * half + 1)))
    return found


def thinned_points(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
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


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two values: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two positive values, with their doubles and fives where these are few."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = math.log10(high / low)
    multiples = (1, 2, 5) if decades < 2.5 else (1,)
    found = [m * 10.0**e for e in exponents for m in multiples if low <= m * 10.0**e <= high]
    return found[:: max(1, len(found) // 6)]


def short(value: float) -> str:
    """A number in few characters: 12.5k, 0.003, 2e-07."""
    size = abs(value)
    if size >= 1e15 or (value and size < 1e-4):
        return f"{value:.2g}"
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{value / factor:.4g}{suffix}"
    return f"{value:.4g}"
