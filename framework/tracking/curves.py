"""Curves of a run's metrics as an image."""

from collections.abc import Iterable
from pathlib import Path

from framework.tracking.metric_files import read_metrics

_COLUMNS = 3
_WIDTH, _HEIGHT = 5.0, 3.0
"""Of a panel with its labels, in inches."""
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.8, 0.2, 0.6, 0.35
"""Inches for the labels on each side. matplotlib's own layouts measure every text first: more than half of the time."""
_LABEL = -0.13
"""Of an axis, as a share of the panel's height or width; a title or label without a place would be moved clear of all texts."""
_EACH = "_by_agent"


def draw_curves(run_dir: Path) -> Path | None:
    """Draw every metric over the optimizer's steps to `curves.png` in the run's folder; None where there are none."""
    # Imported here and without pyplot: the figure needs no display, and most commands draw nothing.
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, MaxNLocator

    class PlainNumbers(LogFormatter):
        """0.001 and not a power of ten in mathematical type, for which matplotlib has a parser, slower than all else."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    series = read_metrics(run_dir)
    if not series:
        return None
    panels = _panels(series)
    rows = -(-len(panels) // _COLUMNS)
    width, height = _WIDTH * _COLUMNS, _HEIGHT * rows
    figure = Figure(figsize=(width, height))
    for place, (title, names) in enumerate(panels.items()):
        left = place % _COLUMNS * _WIDTH + _LEFT
        bottom = height - (place // _COLUMNS + 1) * _HEIGHT + _BOTTOM
        size = (_WIDTH - _LEFT - _RIGHT) / width, (_HEIGHT - _BOTTOM - _TOP) / height
        axes = figure.add_axes((left / width, bottom / height, *size))
        for name in names:
            values = series[name]
            steps = sorted(values)
            marker = "." if len(steps) < 10 else None
            label = name.partition("/")[2]
            axes.plot(steps, [values[step] for step in steps], linewidth=1.2, marker=marker, label=label)
        positive = all(value > 0 for name in names for value in series[name].values())
        if title.startswith(("loss/", "validation/")) and positive:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(PlainNumbers())
            axes.yaxis.set_minor_formatter(PlainNumbers(labelOnlyBase=False))
        if title.endswith(_EACH):
            axes.legend(fontsize="small")
        axes.set_title(title, y=1.0)
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_label_coords(0.5, _LABEL)
        axes.yaxis.set_label_coords(_LABEL, 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(alpha=0.3)
    path = run_dir / "curves.png"
    figure.savefig(path, dpi=100)
    return path


def _panels(series: Iterable[str]) -> dict[str, list[str]]:
    """The metrics by panel: of each agent of a system, such as `credit_by_agent/hotel`, in one together."""
    panels: dict[str, list[str]] = {}
    for name in series:
        group = name.partition("/")[0]
        panels.setdefault(group if group.endswith(_EACH) else name, []).append(name)
    return panels
