"""A picture of a trace's graph: edges as wide as the credit that flows over them."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framework.files import written_whole
from framework.gbc.credits import LOSS, Attribution, EdgeCredit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_COLORS = {"message": (0.70, 0.15, 0.12), "control": (0.25, 0.32, 0.71), "output": (0.70, 0.15, 0.12)}
_WIDEST = 9.0


def save_picture(path: str | Path, attribution: Attribution) -> None:
    """Writes the picture as PNG or SVG, after the name's end; makes the folder. Raises OSError."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as stream:
        _draw(attribution).savefig(stream, format=path.suffix.lstrip(".") or "png", dpi=150)


def picture_svg(attribution: Attribution) -> str:
    """The picture as an `<svg>` element for an HTML page."""
    stream = io.StringIO()
    _draw(attribution).savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def layers(attribution: Attribution) -> list[list[str]]:
    """Steps by the longest way from an input, the loss last: what a drawing needs (ours)."""
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

    rows = layers(attribution)
    tallest = max(map(len, rows))
    figure = Figure(figsize=(1.9 * len(rows) + 0.6, tallest + 1.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(-tallest / 2 - 0.4, tallest / 2 + 0.4)
    places = {
        name: (float(x), (len(row) - 1) / 2 - y + 0.12 * (x % 2))
        for x, row in enumerate(rows)
        for y, name in enumerate(row)
    }
    own = {agent.name: agent.own for agent in attribution.agents}
    top = max(map(abs, own.values()), default=0.0) or 1.0
    credits = {message.step: message.credit for message in attribution.messages}
    nodes = {message.step: message.node for message in attribution.messages}
    boxes: dict[str, Text] = {}
    for name, (x, y) in places.items():
        text, shade = f"loss\n{attribution.loss:.3g}", 0.0
        if name != LOSS:
            text, shade = f"{name}\n{credits[name]:.3g}", abs(own[nodes[name]]) / top
        box = {"boxstyle": "round,pad=0.45", "facecolor": (1, 1 - 0.55 * shade, 1 - 0.65 * shade), "edgecolor": "#444"}
        boxes[name] = axes.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
    largest = max((abs(edge.credit) for edge in attribution.edges), default=0.0) or 1.0
    for edge in attribution.edges:
        if edge.kind not in ("prompt", "code"):
            _draw_edge(axes, edge, boxes, abs(edge.credit) / largest)
    axes.set_title("Edge width: credit. Red box: credit that ends there. Dashed: decides whether it runs.", fontsize=8)
    return figure


def _draw_edge(axes: "Axes", edge: EdgeCredit, boxes: dict[str, "Text"], size: float) -> None:
    source, target = boxes[edge.source], boxes[edge.target]
    (x1, y1), (x2, y2) = source.get_position(), target.get_position()
    # Edges over several layers bend around what lies between.
    bend = 0.0 if x2 - x1 <= 1 else 0.26 * (1 if y1 + y2 >= 0 else -1)
    # A decision beside a message.
    bend -= 0.15 if edge.kind == "control" else 0.0
    # Mixed with white: where a transparent head lies over its line, it would be darker.
    strength = 0.3 + 0.5 * size
    arrow: dict[str, Any] = {
        "arrowstyle": "-|>",
        "linewidth": 0.6 + (_WIDEST - 0.6) * size,
        "color": tuple(1 - strength * (1 - part) for part in _COLORS[edge.kind]),
        "linestyle": "--" if edge.kind == "control" else "-",
        "connectionstyle": f"arc3,rad={-bend}",
        "patchA": source.get_bbox_patch(),
        "patchB": target.get_bbox_patch(),
        "shrinkA": 1,
        "shrinkB": 3 + 4 * size,
        "joinstyle": "miter",
        "mutation_scale": 10 + 6 * size,
    }
    axes.annotate("", xy=(x2, y2), xytext=(x1, y1), arrowprops=arrow, zorder=1)
