import sys

import numpy as np
import pytest

from framework.core.errors import ConfigError, DataError
from framework.evaluation.samples import SampleSet
from framework.evaluation.svm_accuracy import SupportVectorJudge


def test_the_judge_names_held_out_digits(digits):
    training, held_out = digits
    judge = SupportVectorJudge(training)
    assert judge.accuracy(held_out) >= 0.98
    blank = SampleSet(images=np.zeros_like(held_out.images), labels=held_out.labels)
    assert judge.accuracy(blank) < 0.2


def test_the_judge_needs_labels(digits):
    training, held_out = digits
    with pytest.raises(DataError, match="cannot learn"):
        SupportVectorJudge(SampleSet(images=training.images))
    with pytest.raises(DataError, match="no labels to judge by"):
        SupportVectorJudge(training).accuracy(SampleSet(images=held_out.images))


def test_the_judge_names_its_extra_where_scikit_learn_is_missing(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ConfigError, match=r"framework\[digits\]"):
        SupportVectorJudge(digits[0])
