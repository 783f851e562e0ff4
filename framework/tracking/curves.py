"""Curves of a run's metrics from its CSV files."""

import csv
from collections import defaultdict
from pathlib import Path

from framework.tracking.run import METRICS

Series = dict[int, float]
_COLUMNS = 3


def read_metrics(run_dir: Path) -> dict[str, Series]:
    """Every metric's values by step; where a resumed run took a step again, the later value."""
    series: dict[str, Series] = defaultdict(dict)
    attempts = sorted((run_dir / METRICS).glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name[8:]))
    for attempt in attempts:
        # What follows the end of the last line was being written when the process was killed.
        whole_lines, _, _ = attempt.read_text().rpartition("\n")
        for row in csv.DictReader(whole_lines.splitlines()):
            step = int(row.pop("step"))
            for name, value in row.items():
                if value and name != "epoch":
                    series[name][step] = float(value)
    return dict(sorted(series.items()))


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
