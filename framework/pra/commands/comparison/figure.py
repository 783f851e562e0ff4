"""The figures of a comparison: what is measured over the token's size and over training steps, a line for each row."""
# matplotlib says what its keyword arguments are only in part.
# pyright: reportUnknownMemberType=false

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from framework.pra.commands.comparison.results import PartResult, Spread, by_training_steps, quantities, spreads
from framework.pra.commands.figures import save_figure

if TYPE_CHECKING:
    # Most commands draw nothing.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE = "comparison"
"""Name of the figure's files, which are an SVG and a PNG."""
CURVES = "curves"
"""The same of the figure over training steps."""
_COLUMNS = 3
_WIDTH, _HEIGHT = 4.5, 3.6
"""Of a panel, in inches."""


def draw_comparison(out: Path, results: Sequence[PartResult], floors: Mapping[int, float]) -> list[Path]:
    """Draws `comparison.svg` and `comparison.png`: a panel for each quantity, bars from the least to the largest seed.

    Args:
        out: folder of the comparison.
        results: of parts that were trained equally long, one or more.
        floors: distance of training images to the held-out ones, by image size.
    """
    token_sizes = {each.image_size: each.token_size for each in results}
    columns = quantities(results)
    figure, panels = _figure(columns)
    for axes, (title, quantity) in zip(panels, columns.items(), strict=True):
        found = spreads(results, quantity)
        for place, variant in enumerate(_rows(results)):
            points = {token_sizes[size]: each for (name, size), each in found.items() if name == variant}
            _draw_line(axes, points, variant, place)
        if title.startswith("Fréchet"):
            known = sorted((token_sizes[size], floor) for size, floor in floors.items() if size in token_sizes)
            if known:
                axes.plot(*zip(*known, strict=True), "--", color="gray", marker=".", label="training images")
            _scale_distances(axes)
        _label(axes, sorted(token_sizes.values()), "values of a token")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return save_figure(figure, out / FIGURE)


def draw_curves(out: Path, results: Sequence[PartResult]) -> list[Path]:
    """Draws `curves.svg` and `curves.png`: Fréchet distance without guidance over training steps, a panel a size.

    Args:
        out: folder of the comparison.
        results: of parts after several numbers of training steps.
    """
    sizes = {each.image_size: f"Fréchet, tokens of {each.token_size} values" for each in results}
    figure, panels = _figure([sizes[size] for size in sorted(sizes)])
    curves = {
        steps: spreads(found, lambda part: part.distance("1")) for steps, found in by_training_steps(results).items()
    }
    for axes, size in zip(panels, sorted(sizes), strict=True):
        for place, variant in enumerate(_rows(results)):
            points = {steps: found[variant, size] for steps, found in curves.items() if (variant, size) in found}
            _draw_line(axes, points, variant, place)
        _scale_distances(axes)
        measured = [steps for steps, found in curves.items() if any(of_size == size for _, of_size in found)]
        _label(axes, sorted(measured), "training steps")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return save_figure(figure, out / CURVES)


def _figure(titles: Iterable[str]) -> "tuple[Figure, list[Axes]]":
    """A figure with a panel for each title."""
    from matplotlib.figure import Figure

    titles = list(titles)
    columns = min(len(titles), _COLUMNS)
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(columns * _WIDTH, rows * _HEIGHT), layout="constrained")
    panels = [figure.add_subplot(rows, columns, number + 1) for number in range(len(titles))]
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize="medium")
    return figure, panels


def _rows(results: Iterable[PartResult]) -> list[str]:
    """Rows in their order: one has its colour in all panels, also in those that not all rows are in."""
    return list(dict.fromkeys(each.variant for each in results))


def _draw_line(axes: "Axes", points: Mapping[int, Spread], variant: str, place: int) -> None:
    """A row's line with bars; what is not a number has no place in it.

    Args:
        axes: to draw into.
        points: spreads by what is on the axis below.
        variant: the row.
        place: of the row among all.
    """
    places = [at for at in sorted(points) if isfinite(points[at].mean)]
    found = [points[at] for at in places]
    if found:
        bars = ([each.mean - each.low for each in found], [each.high - each.mean for each in found])
        means = [each.mean for each in found]
        axes.errorbar(places, means, yerr=bars, label=variant, color=f"C{place}", marker=".", capsize=3)


def _scale_distances(axes: "Axes") -> None:
    """A logarithmic axis with enough numbers to read what is drawn there from, also within one power of ten."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7) if high < 10 * low else (1, 3)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _label(axes: "Axes", ticks: Sequence[int], label: str) -> None:
    """The axis below, in powers of two with only these ticks."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{each:,}" for each in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
