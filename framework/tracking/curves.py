"""Curves of a run's metrics as an image."""

from collections.abc import Iterable
from pathlib import Path

from framework.tracking.metric_files import read_metrics

_COLUMNS = 3
_EACH = "_by_agent"


def draw_curves(run_dir: Path) -> Path | None:
    """Draw every metric over the optimizer's steps to `curves.png` in the run's folder; None where there are none."""
    # Imported here and without pyplot: the figure needs no display, and most commands draw nothing.
    from matplotlib.figure import Figure

    series = read_metrics(run_dir)
    if not series:
        return None
    panels = _panels(series)
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(5 * _COLUMNS, 3 * rows), layout="constrained")
    for place, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, _COLUMNS, place)
        for name in names:
            values = series[name]
            steps = sorted(values)
            marker = "." if len(steps) < 10 else None
            label = name.partition("/")[2]
            axes.plot(steps, [values[step] for step in steps], linewidth=1.2, marker=marker, label=label)
        positive = all(value > 0 for name in names for value in series[name].values())
        if title.startswith(("loss/", "validation/")) and positive:
            axes.set_yscale("log")
        if title.endswith(_EACH):
            axes.legend(fontsize="small")
        axes.set_title(title)
        axes.set_xlabel("optimizer step")
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
