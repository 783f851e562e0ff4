import sys

import numpy as np
import pytest

from framework.core.errors import ConfigError, DataError
from framework.evaluation import svm_accuracy
from framework.evaluation.samples import SampleSet
from framework.evaluation.svm_accuracy import SupportVectorClassifier


def test_held_out_digits_are_classified_and_blank_ones_are_not(digits):
    training, held_out = digits
    machine = SupportVectorClassifier(training)
    assert machine.accuracy(held_out) >= 0.98
    blank = SampleSet(images=np.zeros_like(held_out.images), labels=held_out.labels)
    assert machine.accuracy(blank) < 0.2


def test_it_is_the_machine_of_scikit_learn(digits, monkeypatch):
    from sklearn.svm import SVC

    monkeypatch.setattr(svm_accuracy, "_CHUNK", 100)
    training, held_out = (SampleSet(images=each.images[:400], labels=each.labels[:400]) for each in digits)
    reference = SVC(kernel="rbf", C=10.0, gamma="scale").fit(training.images.reshape(400, -1) / 255, training.labels)
    machine = SupportVectorClassifier(training)
    pixels = held_out.images.reshape(len(held_out), -1)
    assert machine.accuracy(held_out) == reference.score(pixels / 255, held_out.labels)
    rows = np.concatenate([rows for _, rows in machine._kernel(pixels, "held out")])
    assert np.allclose(machine._classifier.decision_function(rows), reference.decision_function(pixels / 255))


def test_many_training_images_are_taken_in_part(digits, monkeypatch):
    monkeypatch.setattr(svm_accuracy, "MAX_TRAINING_IMAGES", 300)
    training, held_out = digits
    machine = SupportVectorClassifier(training)
    assert machine.num_images == 300
    assert machine.accuracy(held_out) > 0.9


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
