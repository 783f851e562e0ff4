import numpy as np
import pytest

from framework.evaluation.features import PixelFeatures, extract_features
from framework.evaluation.samples import SampleSet


def test_pixel_features_by_hand():
    images = SampleSet(images=np.array([[[[0, 51], [102, 255]]]], np.uint8).reshape(1, 2, 2, 1))
    assert extract_features(PixelFeatures(), images, batch_size=8).tolist() == [pytest.approx([0, 0.2, 0.4, 1])]
