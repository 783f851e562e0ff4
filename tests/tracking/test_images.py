"""Images of a run by their step, and a few of many."""

from pathlib import Path

from framework.tracking.images import evenly_spaced, list_images


def test_images_are_listed_by_step(tmp_path: Path):
    names = ["step=00000010.png", "step=00000009.png", "step=123456789.png", "step=1.png", "step=00000011.png.tmp", "a"]
    for name in names:
        (tmp_path / name).touch()
    assert list(list_images(tmp_path).items()) == [
        (step, tmp_path / name) for step, name in ((9, names[1]), (10, names[0]), (123_456_789, names[2]))
    ]
    assert list_images(tmp_path / "nowhere") == {}


def test_a_few_of_many_with_both_ends():
    assert evenly_spaced(range(10), 4) == [0, 3, 6, 9]
    assert evenly_spaced(range(3), 4) == [0, 1, 2]
    assert evenly_spaced(range(10), 1) == [9]
    assert evenly_spaced(range(10), 0) == []
