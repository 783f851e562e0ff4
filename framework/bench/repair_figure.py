"""The figure of `framework bench repair`: who is named first against what is won back, and how soon."""

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import mean

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from framework.core.io import atomic_write
from framework.gbc.environments.prompt_repair import Repair

_RESAMPLES = 2000


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % of the means of 2,000 resamplings of the values, which are the same at every call."""
    rng = Random("resamples")
    means = sorted(mean(rng.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]


def plot_repairs(repairs: Sequence[Repair], path: Path) -> None:
    """Draws each optimizer, with what led it, as a point with error bars: top-1 across, what it brought upwards.

    Args:
        repairs: of all ways, the same damages for each.
        path: of the SVG file.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasSVG(figure)
    panels: tuple[tuple[str, Callable[[Repair], float]], ...] = (
        ("share of the lost success won back", lambda each: each.won_back),
        ("evaluations until then", lambda each: each.evaluations),
    )
    for axes, (title, value) in zip(figure.subplots(1, 2), panels, strict=True):
        for name in dict.fromkeys(each.optimizer for each in repairs):
            own = [each for each in repairs if each.optimizer == name]
            named, brought = [float(each.named_first) for each in own], [value(each) for each in own]
            x, y = mean(named), mean(brought)
            (left, right), (below, above) = interval(named), interval(brought)
            errors = {"xerr": [[x - left], [right - x]], "yerr": [[y - below], [above - y]]}
            axes.errorbar(x, y, **errors, marker="o", capsize=3, label=name)
        axes.set_xlabel("share of faults whose culprit is changed first")
        axes.set_title(title)
    figure.axes[0].legend(loc="lower right")
    with atomic_write(path) as stream:
        figure.savefig(stream, format="svg")
