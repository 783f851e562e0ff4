"""A figure is written twice."""

from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from framework.pra.commands.figures import save_figure


def test_a_drawing_and_an_image(tmp_path: Path):
    svg, png = save_figure(Figure(figsize=(2, 1)), tmp_path / "a.b")
    assert (svg, png) == (tmp_path / "a.b.svg", tmp_path / "a.b.png")
    assert "<svg" in svg.read_text()
    with Image.open(png) as image:
        assert image.size == (200, 100)
