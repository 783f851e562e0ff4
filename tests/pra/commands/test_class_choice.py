"""Classes by name or by number."""

import pytest

from framework.core.errors import ConfigError
from framework.pra.commands.class_choice import chosen_classes

NAMES = ("cat", "dog", "tench, Tinca tinca", "7")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("dog", [1]),
        ("dog, cat", [1, 0]),
        ("tench, Tinca tinca", [2]),
        (["tench, Tinca tinca", 0, "dog"], [2, 0, 1]),
        ("2,dog", [2, 1]),
        # A name before a number; what a list gives as a number is one.
        ("7,3", [3, 3]),
        ([3, 1], [3, 1]),
    ],
)
def test_chosen(wanted, expected):
    assert chosen_classes(wanted, 4, NAMES) == expected


def test_without_names():
    assert chosen_classes("1,0", 2, None) == [1, 0]
    with pytest.raises(ConfigError, match=r"'cat': the checkpoint does not say.*: use classes 0 to 1"):
        chosen_classes("cat", 2, None)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("dgo", "class 'dgo' is not one of the 4 classes: use dog"),
        ("xxx", "class 'xxx' is not one of the 4 classes: use cat, dog"),
        ("4", "class 4 is out of range: use classes 0 to 3"),
        ([7], "class 7 is out of range"),
        ([-1], "class -1 is out of range"),
        ("", "no class is chosen"),
        ([], "no class is chosen"),
    ],
)
def test_what_is_not_a_class(wanted, words: str):
    with pytest.raises(ConfigError, match=words):
        chosen_classes(wanted, 4, NAMES)
