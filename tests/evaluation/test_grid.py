import numpy as np
import torch
from PIL import Image

from framework.evaluation.grid import save_grid


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
