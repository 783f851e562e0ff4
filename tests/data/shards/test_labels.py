"""Labels are whole numbers or names, and never a guess between both."""

import pytest

from framework.core.errors import DataError
from framework.data.shards.labels import classes_of, whole_number


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("0", 0),
        ("007", 7),
        ("7.0", 7),
        ("7.", 7),
        ("7.5", None),
        ("-7", None),
        ("7e1", None),
        ("cat", None),
        ("", None),
        ("9" * 5000, None),  # more digits than Python makes a number of
    ],
)
def test_whole_numbers(label: str, number: int | None):
    assert whole_number(label) == number


def test_classes():
    assert classes_of({"2", "0.0"}, None, where="x") == ("0", "1", "2")
    assert classes_of({"dog", "cat"}, None, where="x") == ("cat", "dog")
    assert classes_of({"v1.5", "v1.6"}, None, where="x") == ("v1.5", "v1.6")
    assert classes_of({"dog", "1"}, ("cat", "dog"), where="x") == ("cat", "dog")
    assert classes_of({"9" * 5000, "8" * 20}, None, where="x") == ("8" * 20, "9" * 5000)


@pytest.mark.parametrize(
    ("labels", "given", "message"),
    [
        ({"0.5", "1"}, None, "label '0.5' in x is a number, but not a whole one"),
        ({"1e-3"}, None, "label '1e-3' in x is a number, but not a whole one"),
        ({"dog", "1.0"}, None, r"some labels in x are names \('dog'\) and some numbers \(1.0\)"),
        ({"9999999"}, None, "the largest label in x is 9999999, of 1 different ones"),
        ({"2"}, ("a", "b"), "label '2' in x is none of the 2 classes"),
        ({"ant"}, ("a", "b"), "label 'ant' in x is none of the 2 classes"),
    ],
)
def test_labels_that_are_of_no_class(labels: set[str], given: tuple[str, ...] | None, message: str):
    with pytest.raises(DataError, match=message):
        classes_of(labels, given, where="x")
