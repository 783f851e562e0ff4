from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from framework.core.errors import ConfigError
from framework.evaluation.grid import column_headings, save_grid


def test_images_are_laid_out_row_by_row_and_enlarged(tmp_path):
    images = torch.full((3, 1, 8, 8), -1.0)
    images[1] = 1.0
    save_grid(tmp_path / "made" / "grid.png", images, columns=2)
    pixels = np.asarray(Image.open(tmp_path / "made" / "grid.png"))
    # Eightfold to 64, a gap of 2 on every side of an image, and a white place for the missing fourth.
    assert pixels.shape == (2 * 68, 2 * 68)
    assert (pixels[2:66, 2:66] == 0).all()
    assert (pixels[2:66, 70:134] == 255).all()
    assert (pixels[70:134, 2:66] == 0).all()
    assert (pixels[70:134, 70:134] == 255).all()
    assert not list(tmp_path.rglob("*.partial"))


def test_colour_keeps_its_channels(tmp_path):
    images = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    save_grid(tmp_path / "grid.png", images, columns=1)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels[10, 10].tolist() == [255, 0, 128]


def test_images_of_several_sizes_keep_their_pixels(tmp_path):
    save_grid(tmp_path / "grid.png", [torch.full((1, 64, 64), -1.0), torch.full((1, 24, 24), -1.0)], columns=2)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (68, 2 * 68)
    # Twice as large, in the middle of its place.
    assert (pixels[10:58, 78:126] == 0).all()
    assert (pixels == 0).sum() == 64**2 + 48**2


def test_headings_and_captions_have_lines_of_their_own(tmp_path):
    images = torch.ones(3, 1, 8, 8)
    save_grid(tmp_path / "plain.png", images, columns=2)
    save_grid(tmp_path / "grid.png", images, columns=2, headings=["cat", ""], captions=["one", "a\nname " * 20, "😀"])
    plain, pixels = (np.asarray(Image.open(tmp_path / name)) for name in ("plain.png", "grid.png"))
    assert (plain == 255).all()
    assert pixels.shape == (16 + 2 * (68 + 16), 2 * 68)
    assert (pixels[:16, :68] < 255).any(), "cat"
    assert (pixels[:16, 68:] == 255).all()
    for row, column in ((0, 0), (0, 1), (1, 0)):
        line = pixels[16 + row * 84 + 66 : 16 + (row + 1) * 84, column * 68 : (column + 1) * 68]
        assert (line < 255).any()
        assert (line[:, :2] == 255).all()
        assert (line[:, -2:] == 255).all(), "what is too long is cut"


def test_headings_are_names_where_they_are_known():
    assert column_headings([2, 0], ("a", "b", "c")) == ["c", "a"]
    assert column_headings([2, 0], None) == ["2", "0"]


def test_a_grid_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="0 images in 2 columns"):
        save_grid(tmp_path / "grid.png", [], columns=2)


def test_names_of_classes_are_drawn_in_their_script_and_can_be_told_apart(tmp_path: Path):
    """Signs that the font lacks are drawn as escapes, not as one and the same box."""
    names = ["é", "Кот", "שלום", "日本", "中国", "a\x1bb", "a\nb", "x" * 10_000]
    save_grid(tmp_path / "g.png", torch.zeros(len(names), 1, 64, 64), columns=1, captions=names)
    pixels = np.asarray(Image.open(tmp_path / "g.png"))
    lines = [pixels[84 * row + 66 : 84 * row + 84].tobytes() for row in range(len(names))]
    assert len(set(lines)) == len(names)
    box = tmp_path / "box.png"
    save_grid(box, torch.zeros(1, 1, 64, 64), columns=1, captions=["\\u65e5\\u672c"])
    assert (np.asarray(Image.open(box))[66:84] == pixels[84 * 3 + 66 : 84 * 3 + 84]).all()
