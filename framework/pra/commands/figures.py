"""Figures as files."""
# matplotlib says what its keyword arguments are only in part.
# pyright: reportUnknownMemberType=false

from pathlib import Path
from typing import TYPE_CHECKING

from framework.core.io import atomic_write

if TYPE_CHECKING:
    # Most commands draw nothing.
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", stem: Path) -> list[Path]:
    """Writes a figure as SVG, for documents, and as PNG.

    Args:
        figure: whole.
        stem: the files' path without its ending.

    Returns:
        The two files.
    """
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("svg", "png")]
    for path in paths:
        with atomic_write(path) as stream:
            figure.savefig(stream, format=path.suffix[1:], dpi=100)
    return paths
