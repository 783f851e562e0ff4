"""The figure of a comparison: what is measured over the token's size, a line for each row."""
# matplotlib says what its keyword arguments are only in part.
# pyright: reportUnknownMemberType=false

from collections.abc import Mapping, Sequence
from pathlib import Path

from framework.pra.commands.comparison.results import PartResult, quantities, spreads
from framework.pra.commands.figures import save_figure

FIGURE = "comparison"
"""Name of the figure's files, which are an SVG and a PNG."""
_COLUMNS = 3
_WIDTH, _HEIGHT = 4.5, 3.6
"""Of a panel, in inches."""


def draw_comparison(out: Path, results: Sequence[PartResult], floors: Mapping[int, float]) -> list[Path]:
    """Draws `comparison.svg` and `comparison.png`: a panel for each quantity, bars from the least to the largest seed.

    Args:
        out: folder of the comparison.
        results: of parts, one or more.
        floors: distance of training images to the held-out ones, by image size.
    """
    from matplotlib.figure import Figure

    panels = quantities(results)
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _WIDTH, rows * _HEIGHT), layout="constrained")
    token_sizes = {each.image_size: each.token_size for each in results}
    ticks = sorted(token_sizes.values())
    for number, (title, quantity) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, _COLUMNS, number + 1)
        found = spreads(results, quantity)
        # A row has its colour in all panels, also in those that not all rows are in.
        for place, variant in enumerate(dict.fromkeys(each.variant for each in results)):
            points = sorted((token_sizes[size], each) for (name, size), each in found.items() if name == variant)
            if points:
                below = [each.mean - each.low for _, each in points]
                above = [each.high - each.mean for _, each in points]
                sizes, means = [size for size, _ in points], [each.mean for _, each in points]
                axes.errorbar(
                    sizes, means, yerr=(below, above), label=variant, color=f"C{place}", marker=".", capsize=3
                )
        if title.startswith("Fréchet"):
            axes.set_yscale("log")
            known = sorted((token_sizes[size], floor) for size, floor in floors.items() if size in token_sizes)
            if known:
                axes.plot(*zip(*known, strict=True), "--", color="gray", marker=".", label="training images")
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(each) for each in ticks])
        axes.minorticks_off()
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("values of a token")
        axes.grid(alpha=0.3)
        if number == 0:
            axes.legend(fontsize="small")
    return save_figure(figure, out / FIGURE)
