"""A plot of a trace's graph: edges as wide as the credit that flows over them."""

import io
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from PIL import Image

from framework.core.io import atomic_write
from framework.gbc.attribution.results import LOSS, Attribution, EdgeCredit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_COLORS = {"message": (0.70, 0.15, 0.12), "control": (0.25, 0.32, 0.71), "output": (0.70, 0.15, 0.12)}
_WIDEST = 9.0
_LAYER, _ROW = 1.9, 0.95
"""Inches from a layer to the next, and from a step to the one below it."""
_BOX = (0.45, 0.31)
"""Half of a box, with some air, in inches."""
_BENDS = (0.0, 0.12, 0.2, 0.28, 0.36, 0.44)
_CAPTION = "Edge width: credit. Red box: credit that ends there. Dashed: decides whether it runs."
Point = tuple[float, float]


def save_graph_plot(path: str | Path, attribution: Attribution) -> None:
    """Writes the plot as PNG or SVG, after the name's end; makes the folder. Raises OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        _save(_draw(attribution), stream, format=path.suffix.lstrip(".") or "png", dpi=150.0)


def graph_svg(attribution: Attribution) -> str:
    """The plot as an `<svg>` element for an HTML page."""
    stream = io.StringIO()
    _save(_draw(attribution), stream, format="svg")
    text = stream.getvalue()
    return text[text.index("<svg") :]


def graph_image(attribution: Attribution, *, most_pixels: int = 3000) -> Image.Image:
    """The plot as an image, no wider or higher than so many pixels."""
    figure, stream = _draw(attribution), io.BytesIO()
    _save(figure, stream, format="png", dpi=min(150.0, most_pixels / max(map(float, figure.get_size_inches()))))
    return Image.open(stream).copy()


def layers(attribution: Attribution) -> list[list[str]]:
    """Steps by the longest path from an input, the loss last: what a drawing needs (ours)."""
    depth = {message.step: 0 for message in attribution.messages}
    into: dict[str, list[str]] = {name: [] for name in [*depth, LOSS]}
    for edge in attribution.edges:
        if edge.kind not in ("prompt", "code"):
            into[edge.target].append(edge.source)
    # Messages are in topological order.
    for name in [*list(depth), LOSS]:
        depth[name] = 1 + max((depth[source] for source in into[name]), default=-1)
    depth[LOSS] = max(depth.values())
    rows: list[list[str]] = [[] for _ in range(depth[LOSS] + 1)]
    for name, layer in depth.items():
        rows[layer].append(name)
    return [row for row in rows if row]


def _draw(attribution: Attribution) -> "Figure":
    # Imported here and without pyplot: the figure needs no display, and most commands draw nothing.
    from matplotlib.figure import Figure

    places = {
        name: (_LAYER * x, ((len(row) - 1) / 2 - y) * _ROW + 0.12 * (x % 2))
        for x, row in enumerate(layers(attribution))
        for y, name in enumerate(row)
    }
    edges = [edge for edge in attribution.edges if edge.kind not in ("prompt", "code")]
    bends = [_bend(edge, places) for edge in edges]
    drawn = [
        point
        for edge, bend in zip(edges, bends, strict=True)
        for point in _curve(places[edge.source], places[edge.target], bend)
    ]
    left, right = min(x for x, _ in drawn) - 0.6, max(x for x, _ in drawn) + 0.6
    bottom, top = min(y for _, y in drawn) - 0.45, max(y for _, y in drawn) + 0.75
    # One inch of the figure is one of the places.
    figure = Figure(figsize=(right - left, top - bottom))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # pyright: ignore[reportUnknownMemberType]
    axes.set_axis_off()
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    own = {agent.name: agent.own for agent in attribution.agents}
    most = max(map(abs, own.values()), default=0.0) or 1.0
    credits = {message.step: message.credit for message in attribution.messages}
    nodes = {message.step: message.node for message in attribution.messages}
    boxes: dict[str, Text] = {}
    for name, (x, y) in places.items():
        text, shade = f"loss\n{attribution.loss:.3g}", 0.0
        if name != LOSS:
            text, shade = f"{name}\n{credits[name]:.3g}", abs(own[nodes[name]]) / most
        box = {"boxstyle": "round,pad=0.45", "facecolor": (1, 1 - 0.55 * shade, 1 - 0.65 * shade), "edgecolor": "#444"}
        boxes[name] = axes.text(  # pyright: ignore[reportUnknownMemberType]
            x, y, text, ha="center", va="center", fontsize=9, bbox=box, zorder=1, parse_math=False
        )
    largest = max((abs(edge.credit) for edge in attribution.edges), default=0.0) or 1.0
    # Drawn after the boxes: before, a box does not know where it is, and an arrow not where to end.
    for edge, bend in zip(edges, bends, strict=True):
        _draw_edge(axes, edge, boxes, bend, abs(edge.credit) / largest)
    middle = (left + right) / 2
    axes.text(middle, top - 0.1, _CAPTION, ha="center", va="top", fontsize=8)  # pyright: ignore[reportUnknownMemberType]
    return figure


def _save(figure: "Figure", stream: io.IOBase | BinaryIO, *, format: str, dpi: float = 100.0) -> None:
    """Writes the figure; without its date, so that equal plots are equal files."""
    metadata = {"Date": None} if format == "svg" else None
    figure.savefig(cast("IO[bytes]", stream), format=format, dpi=dpi, metadata=metadata)  # pyright: ignore[reportUnknownMemberType]


def _bend(edge: EdgeCredit, places: dict[str, Point]) -> float:
    """The smallest bend, upwards positive, with which an edge passes by all other boxes, or the one nearest to it."""
    start, stop = places[edge.source], places[edge.target]
    others = [place for name, place in places.items() if name not in (edge.source, edge.target)]
    # Outwards there is more room.
    side = 1 if start[1] + stop[1] >= 0 else -1
    bends = sorted(
        (sign * size for size in _BENDS for sign in (1, -1)), key=lambda bend: max(bend * side, -2 * bend * side)
    )
    found, widest = 0.0, float("-inf")
    for bend in bends:
        gap = min(
            (
                max(abs(x - box[0]) - _BOX[0], abs(y - box[1]) - _BOX[1])
                for x, y in _curve(start, stop, bend)
                for box in others
            ),
            default=1.0,
        )
        if gap > widest:
            found, widest = bend, gap
        if gap > 0:
            break
    # A decision beside a message.
    return found - (0.15 if edge.kind == "control" else 0.0)


def _curve(start: Point, stop: Point, bend: float) -> list[Point]:
    """Points of the parabola that matplotlib's `arc3` draws: its control point is beside the middle.

    Args:
        start: where it begins, in inches.
        stop: where it ends, in inches.
        bend: distance of the control point from the middle, upwards positive, in lengths of the straight line.
    """
    (x1, y1), (x2, y2) = start, stop
    x, y = (x1 + x2) / 2 - bend * (y2 - y1), (y1 + y2) / 2 + bend * (x2 - x1)
    fractions = [index / 24 for index in range(25)]
    return [
        ((1 - t) ** 2 * x1 + 2 * t * (1 - t) * x + t**2 * x2, (1 - t) ** 2 * y1 + 2 * t * (1 - t) * y + t**2 * y2)
        for t in fractions
    ]


def _draw_edge(axes: "Axes", edge: EdgeCredit, boxes: dict[str, "Text"], bend: float, size: float) -> None:
    """An arrow from box to box.

    Args:
        axes: to draw on.
        edge: the connection.
        boxes: of the steps, by name.
        bend: of the arrow, as in `_curve`.
        size: its credit as a share of the largest, in [0, 1].
    """
    source, target = boxes[edge.source], boxes[edge.target]
    (x1, y1), (x2, y2) = source.get_position(), target.get_position()
    # Mixed with white: where a transparent head lies over its line, it would be darker.
    strength = 0.3 + 0.5 * size
    arrow: dict[str, object] = {
        "arrowstyle": "-|>",
        "linewidth": 0.6 + (_WIDEST - 0.6) * size,
        "color": tuple(1 - strength * (1 - part) for part in _COLORS[edge.kind]),
        "linestyle": "--" if edge.kind == "control" else "-",
        "connectionstyle": f"arc3,rad={-bend}",
        "patchA": source.get_bbox_patch(),
        "patchB": target.get_bbox_patch(),
        "shrinkA": 1 + 4 * size,
        "shrinkB": 3 + 4 * size,
        "joinstyle": "miter",
        "mutation_scale": 10 + 6 * size,
    }
    axes.annotate(  # pyright: ignore[reportUnknownMemberType]
        "", xy=(x2, y2), xytext=(x1, y1), arrowprops=arrow, zorder=2
    )
