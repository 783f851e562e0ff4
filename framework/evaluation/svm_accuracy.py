"""How often a support vector machine that was trained on real images alone predicts the label of generated ones."""

from collections.abc import Iterator
from typing import cast

import numpy as np
from jaxtyping import Float, UInt8

from framework.core.console import tracked, working
from framework.core.errors import ConfigError, DataError
from framework.evaluation.samples import SampleSet

_CHUNK = 1024
MAX_TRAINING_IMAGES = 16_384
"""More would make a kernel of over 2 GiB, and training takes the square of their number."""
_Pixels = UInt8[np.ndarray, "image value"]


class SupportVectorClassifier:
    """scikit-learn's SVC with a radial kernel on pixels in [0, 1].

    `C=10` and `gamma="scale"` (which fits the width to the pixels' variance) are right on 98.6 to 99.4 % of held-out
    real 8x8 digits (ours). The kernel is made of matrix products, exact in the whole numbers 0 to 255; of more than
    `MAX_TRAINING_IMAGES` training images as many are taken, spread evenly.

    Args:
        training: real images with labels.

    Attributes:
        num_images: training images that were taken.

    Raises:
        ConfigError: scikit-learn is not installed.
        DataError: no labels, or fewer than two classes.
    """

    def __init__(self, training: SampleSet) -> None:
        try:
            from sklearn.svm import SVC
        except ImportError as error:
            raise ConfigError("svm_accuracy needs scikit-learn", hint="pip install 'framework[digits]'") from error
        if training.labels is None or len(set(training.labels.tolist())) < 2:
            raise DataError(
                f"svm_accuracy cannot be trained on {training.name}", hint="give images labelled in 2+ classes"
            )
        self.num_images = min(len(training), MAX_TRAINING_IMAGES)
        chosen = np.arange(self.num_images) * len(training) // self.num_images
        self._pixels = _flat(training.images[chosen])
        self._norms = _squared_norms(self._pixels)
        mean = self._pixels.mean(dtype=np.float64)
        variance = self._norms.sum() / self._pixels.size - mean**2
        self._gamma = 1 / (self._pixels.shape[1] * variance)  # scikit-learn's "scale"
        self._classifier = SVC(kernel="precomputed", C=10.0)
        kernel = np.empty((self.num_images, self.num_images))
        for start, rows in self._kernel(self._pixels, training.name):
            kernel[start : start + len(rows)] = rows
        with working(f"a support vector machine on {self.num_images:,} images"):
            self._classifier.fit(kernel, training.labels[chosen])

    def accuracy(self, samples: SampleSet) -> float:
        """Share in [0, 1] of images whose label it predicts. Raises DataError where there are no labels."""
        if samples.labels is None:
            raise DataError(f"{samples.name} has no labels", hint="give samples with arr_1, or leave out svm_accuracy")
        right = 0
        for start, rows in self._kernel(_flat(samples.images), samples.name):
            right += int((self._classifier.predict(rows) == samples.labels[start : start + len(rows)]).sum())
        return right / len(samples)

    def _kernel(self, pixels: _Pixels, name: str) -> Iterator[tuple[int, Float[np.ndarray, "image training_image"]]]:
        """`exp(-gamma |x - y|^2)` of blocks of images with the training images, and the number of a block's first.

        Args:
            pixels: of the images.
            name: of their set.
        """
        for start in tracked(range(0, len(pixels), _CHUNK), f"kernel of {name}"):
            block = pixels[start : start + _CHUNK]
            squares = _squared_norms(block)[:, None] + self._norms
            for first in range(0, self.num_images, _CHUNK):
                columns = slice(first, first + _CHUNK)
                squares[:, columns] -= 2 * block.astype(np.float64) @ self._pixels[columns].T.astype(np.float64)
            yield start, np.exp(-self._gamma * squares)


def _flat(images: UInt8[np.ndarray, "image height width channel"]) -> _Pixels:
    return cast("_Pixels", images.reshape(len(images), -1))


def _squared_norms(pixels: _Pixels) -> Float[np.ndarray, "image"]:
    """Of images with values 0 to 255, and exact: whole numbers below 2^53."""
    return np.einsum("ij,ij->i", pixels, pixels, dtype=np.int64).astype(np.float64)
