"""scikit-learn's handwritten digits as an image folder: real data for a first run, without a download.

1,797 grayscale images of 8x8 pixels (the test part of the UCI Optical Recognition of Handwritten Digits).
"""

from pathlib import Path

import numpy as np
from PIL import Image

from framework.core.errors import ConfigError

_TEST_EVERY = 5


def write_digit_images(dest: str | Path) -> None:
    """Writes `dest/{train,test}/{0..9}/NNNN.png`.

    Of each class a fifth goes to the test part: 1,438 and 359 images. Pixels 0..16 become 0..255 by round(255 v / 16).

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError(
            "the handwritten digits come with scikit-learn, which is not installed",
            hint='install it with: pip install "framework[digits]"',
        ) from None
    values, labels = load_digits(return_X_y=True)
    pixels = np.round(np.asarray(values).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    # Every fifth image of the list sorted by class: the classes keep their shares.
    for position, number in enumerate(np.argsort(labels, kind="stable")):
        part = "test" if position % _TEST_EVERY == _TEST_EVERY - 1 else "train"
        path = Path(dest) / part / str(labels[number]) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(path)
