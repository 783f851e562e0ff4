"""The command `sample`: an .npz, a grid, and images that are a function of the seed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from framework.core.errors import ConfigError
from framework.evaluation.samples import SampleSet, quantize_images, read_npz
from framework.pra.acceleration import Accelerated
from framework.pra.checkpoint import load_pra
from framework.pra.commands import sample as module
from framework.pra.commands.sample import sample
from framework.pra.generate import generate
from framework.pra.sampling import SamplerConfig

SAMPLER = SamplerConfig(steps=2)


@pytest.mark.slow
def test_samples_are_those_of_the_averaged_weights(trained: Path, tmp_path: Path):
    out = tmp_path / "deep" / "samples.npz"
    sample(str(trained), str(out), num=7, classes=[2, 0], seed=3, batch_size=4, device="cpu", sampler=SAMPLER)
    found = read_npz(out)
    images = torch.cat(list(generate(load_pra(trained), [2, 0] * 3 + [2], seed=3, sampler=SAMPLER)))
    assert found.labels is not None
    assert found.labels.tolist() == [2, 0, 2, 0, 2, 0, 2]
    assert np.array_equal(found.images, SampleSet.from_images(images).with_channels(3).images)
    # Two columns of 64 pixels in gaps below their headings, and four rows.
    with Image.open(out.with_suffix(".png")) as grid:
        assert grid.size == (2 * 68, 16 + 4 * 68)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num": 0}, "num 0, batch_size 256: use 1 or more"),
        ({"num": 1, "batch_size": 0}, "num 1, batch_size 0"),
        ({"num": 1, "classes": [3]}, "class 3 is out of range: use classes 0 to 2"),
        ({"num": 1, "classes": "cat"}, "class 'cat': the checkpoint does not say what its classes are called"),
        ({"num": 1, "device": "nothing"}, "device 'nothing' cannot be used"),
    ],
)
def test_what_cannot_be_sampled(trained: Path, tmp_path: Path, options: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        sample(str(trained), str(tmp_path / "samples.npz"), sampler=SAMPLER, **{"device": "cpu", **options})
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_looked_at_before_anything_is_drawn(trained: Path, tmp_path: Path):
    for out, words in (
        (tmp_path / "grid.png", "give a name that ends in .npz; the grid is beside it as .png"),
        (tmp_path / "file" / "samples.npz", "file is not a folder"),
    ):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match=words):
            sample(str(trained / "missing"), str(out))
    (tmp_path / "curves.png").write_text("of the run")
    with pytest.raises(ConfigError, match=r"curves.png exists, and would be replaced by what is written beside"):
        sample(str(trained), str(tmp_path / "curves.npz"))
    (tmp_path / "taken.npz").touch()
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(ConfigError, match=r"taken.png is a folder"):
        sample(str(trained / "missing"), str(tmp_path / "taken.npz"))


@pytest.mark.parametrize(
    ("labels", "columns", "rows"),
    [
        # Twelve classes: ten of them, in two rows and not in those of other classes.
        (list(range(12)) * 2, list(range(10)), 2),
        ([2, 0, 2, 0, 2], [2, 0], 3),
        # A class that was asked for twice has one column.
        ([1, 0, 0, 1, 0, 0], [1, 0], 4),
        ([0] * 200, None, 10),
    ],
)
def test_columns_of_the_grid_are_classes(labels, columns, rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Every image has the level of its class.
    pixels = np.array(labels, np.uint8)[:, None, None, None].repeat(2, axis=1).repeat(2, axis=2)
    kept: dict[str, object] = {}
    monkeypatch.setattr(module, "save_grid", lambda path, images, **options: kept.update(images=images, **options))
    samples = SampleSet(images=pixels, labels=np.array(labels), classes=tuple("abcdefghijkl"))
    module._save_class_grid(tmp_path / "grid.png", samples)
    made = quantize_images(torch.stack(list(kept["images"])))[:, 0, 0, 0].int()
    if columns is None:
        assert (kept["columns"], len(made)) == (10, 100)
        return
    assert (kept["columns"], kept["headings"]) == (len(columns), ["abcdefghijkl"[label] for label in columns])
    assert len(made) == rows * len(columns)
    for place, label in enumerate(columns):
        of_class = made[place :: len(columns)].tolist()
        count = min(10, labels.count(label))
        assert of_class == [label] * count + [255] * (rows - count), "and white where there is none"


def test_an_output_in_the_place_of_an_input_is_refused(tmp_path: Path):
    (tmp_path / "model.npz").touch()
    with pytest.raises(ConfigError, match=r"model.npz is what is read"):
        sample(str(tmp_path / "model.npz"), str(tmp_path / "model.npz"))


def test_a_sampling_that_was_stopped_goes_on(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, options = tmp_path / "samples.npz", {"num": 10, "batch_size": 4, "device": "cpu", "sampler": SAMPLER}
    sample(str(trained), str(tmp_path / "whole.npz"), **options)
    drawn: list[int] = []
    draw = Accelerated.draw

    def draw_two(*arguments, **others):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(arguments[2].start)
        return draw(*arguments, **others)

    monkeypatch.setattr(Accelerated, "draw", draw_two)
    with pytest.raises(KeyboardInterrupt):
        sample(str(trained), str(out), **options)
    assert not out.exists()
    drawn.clear()
    sample(str(trained), str(out), **options)
    assert drawn == [8], "the two parts that were kept are not drawn again"
    assert np.array_equal(read_npz(out).images, read_npz(tmp_path / "whole.npz").images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.npz", "samples.png", "whole.npz", "whole.png"]


def test_images_a_second_are_told(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = {"batch_size": 4, "device": "cpu", "sampler": SAMPLER}
    sample(str(trained), str(tmp_path / "samples.npz"), num=10, **options)
    assert re.search(r"^sampling: 10 images in [\d.]+ s, [\d.,]+ images/s$", capsys.readouterr().err, re.M)


def test_processes_share_the_images(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = {"num": 10, "batch_size": 2, "device": "cpu", "sampler": SAMPLER}
    sample(str(trained), str(tmp_path / "whole.npz"), **options)
    out = tmp_path / "shared.npz"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        sample(str(trained), str(out), **options)
        assert out.exists() == (rank == 0)
    assert np.array_equal(read_npz(out).images, read_npz(tmp_path / "whole.npz").images)
