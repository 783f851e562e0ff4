import sys

import numpy as np
import pytest

from framework.core.errors import ConfigError, DataError
from framework.evaluation.samples import SampleSet
from framework.evaluation.svm_accuracy import SupportVectorClassifier


def test_held_out_digits_are_classified_and_blank_ones_are_not(digits):
    training, held_out = digits
    machine = SupportVectorClassifier(training)
    assert machine.accuracy(held_out) >= 0.98
    blank = SampleSet(images=np.zeros_like(held_out.images), labels=held_out.labels)
    assert machine.accuracy(blank) < 0.2


def test_it_needs_labels(digits):
    training, held_out = digits
    with pytest.raises(DataError, match="cannot be trained on"):
        SupportVectorClassifier(SampleSet(images=training.images))
    with pytest.raises(DataError, match="has no labels: give samples with arr_1"):
        SupportVectorClassifier(training).accuracy(SampleSet(images=held_out.images))


def test_a_missing_scikit_learn_is_named_with_its_extra(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ConfigError, match=r"framework\[digits\]"):
        SupportVectorClassifier(digits[0])
