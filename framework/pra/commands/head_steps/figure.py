"""The figure of `framework steps`: the distance over the head's steps, a line for each model and sampler."""
# matplotlib says what its keyword arguments are only in part.
# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from pathlib import Path

from framework.pra.commands.figures import save_figure
from framework.pra.commands.head_steps.results import StepResult, lines_of, reference_of, scales_of

FIGURE = "steps"
"""Name of the figure's files, which are an SVG and a PNG."""
_WIDTH, _HEIGHT = 5.0, 4.2
"""Of a panel, in inches."""


def draw_steps(out: Path, results: Sequence[StepResult]) -> list[Path]:
    """Draws `steps.svg` and `steps.png`: a panel for each guidance scale, bars from the least to the largest seed.

    The dashed line is the first line's distance at its most steps.

    Args:
        out: folder of the figure.
        results: one or more.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    scales = scales_of(results)
    figure = Figure(figsize=(_WIDTH * len(scales), _HEIGHT), layout="constrained")
    # A line has its colour in all panels, also in those that not all lines are in.
    colours = {name: f"C{place}" for place, name in enumerate(dict.fromkeys(each.point.line for each in results))}
    first = None
    for place, scale in enumerate(scales):
        axes = figure.add_subplot(1, len(scales), place + 1, sharey=first)
        first = first or axes
        lines = lines_of(results, scale)
        for line in lines:
            numbers, found = list(line.at), list(line.at.values())
            bars = [each.mean - each.low for each in found], [each.high - each.mean for each in found]
            means = [each.mean for each in found]
            axes.errorbar(numbers, means, yerr=bars, label=line.name, color=colours[line.name], marker=".", capsize=3)
        axes.axhline(reference_of(lines).mean, linestyle="--", color="gray", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks = sorted({steps for line in lines for steps in line.at})
        axes.set_xticks(ticks, [str(each) for each in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title("no guidance" if scale == 1 else f"guidance {scale:g}", fontsize="medium")
        axes.set_xlabel("steps of the head for a token")
        axes.set_ylabel("Fréchet distance")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return save_figure(figure, out / FIGURE)
