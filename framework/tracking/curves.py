"""Curves of a run's metrics as a picture."""

from pathlib import Path

from framework.tracking.metric_files import read_metrics

__all__ = ["draw_curves", "read_metrics"]
_COLUMNS = 3


def draw_curves(run_dir: Path) -> Path | None:
    """Draw every metric over the optimizer's steps to `curves.png` in the run's folder; None where there are none."""
    # Imported here and without pyplot: the figure needs no display, and most commands draw nothing.
    from matplotlib.figure import Figure

    series = read_metrics(run_dir)
    if not series:
        return None
    rows = -(-len(series) // _COLUMNS)
    figure = Figure(figsize=(5 * _COLUMNS, 3 * rows), layout="constrained")
    for place, (name, values) in enumerate(series.items(), start=1):
        axes = figure.add_subplot(rows, _COLUMNS, place)
        steps = sorted(values)
        axes.plot(steps, [values[step] for step in steps], linewidth=1.2, marker="." if len(steps) < 10 else None)
        positive = all(value > 0 for value in values.values())
        if name.startswith(("loss/", "validation/")) and positive:
            axes.set_yscale("log")
        axes.set_title(name)
        axes.set_xlabel("optimizer step")
        axes.grid(alpha=0.3)
    path = run_dir / "curves.png"
    figure.savefig(path, dpi=100)
    return path
