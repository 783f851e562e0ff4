import numpy as np
import pytest
import torch
from PIL import Image

from framework.core.errors import DataError
from framework.data.convert.class_folders import write_image_shards
from framework.evaluation.samples import (
    ReferenceStatistics,
    SampleSet,
    dequantize_images,
    quantize_images,
    read_npz,
    read_reference,
    read_samples,
    write_npz,
)


def test_quantize_inverts_dequantize_on_every_level():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(quantize_images(dequantize_images(levels)), levels)


def test_quantize_rounds_and_clamps():
    values = torch.tensor([-1.5, -1.0, 0.0, 0.0041, 1.0, 7.0])
    assert quantize_images(values).tolist() == [0, 0, 128, 128, 255, 255]


def test_from_images_moves_channels_last():
    images = torch.tensor([[[[-1.0, 1.0]], [[1.0, -1.0]], [[1.0, 1.0]]]])
    made = SampleSet.from_images(images, torch.tensor([7]))
    assert made.images.tolist() == [[[[0, 255, 255], [255, 0, 255]]]]
    assert made.labels is not None
    assert made.labels.dtype == np.int64
    assert torch.equal(made.pixels(0, 1), quantize_images(images))


def test_from_images_refuses_nan():
    with pytest.raises(DataError, match="not finite"):
        SampleSet.from_images(torch.full((1, 1, 8, 8), torch.nan))


def test_npz_is_what_the_adm_evaluator_reads(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    write_npz(tmp_path / "deep" / "samples.npz", SampleSet(images=images, labels=np.arange(5)))
    with np.load(tmp_path / "deep" / "samples.npz", allow_pickle=False) as file:
        assert file.files == ["arr_0", "arr_1"]
        assert file["arr_0"].dtype == np.uint8
        assert file["arr_0"].shape == (5, 8, 8, 3)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["samples.npz"]
    again = read_samples(tmp_path / "deep" / "samples.npz")
    assert again.is_gray
    assert np.array_equal(again.with_channels(1).images, images)
    assert again.labels is not None
    assert again.labels.tolist() == [0, 1, 2, 3, 4]


def test_names_of_classes_stay_with_the_samples(tmp_path):
    samples = SampleSet(images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.array([1, 0]), classes=("cat", "Ünit"))
    write_npz(tmp_path / "samples.npz", samples)
    assert read_npz(tmp_path / "samples.npz").classes == ("cat", "Ünit")
    np.savez(tmp_path / "bad.npz", arr_0=samples.images, classes=np.zeros(2))
    with pytest.raises(DataError, match=r"classes of .*bad.npz is float64 \[2\]"):
        read_npz(tmp_path / "bad.npz")


def test_statistics_of_adms_reference_batches(tmp_path):
    images, mean, covariance = np.zeros((2, 8, 8, 3), np.uint8), np.arange(4.0), np.eye(4)
    np.savez(tmp_path / "ref.npz", arr_0=images, mu=mean, sigma=covariance, mu_s=mean, sigma_s=covariance)
    found = read_npz(tmp_path / "ref.npz").statistics
    assert found is not None
    assert np.array_equal(found.mean, mean)
    assert np.array_equal(found.covariance, covariance)
    np.savez(tmp_path / "alone.npz", mu=mean, sigma=covariance)
    with pytest.raises(DataError, match="no arr_0 but mu and sigma alone, which serve as a reference only"):
        read_npz(tmp_path / "alone.npz")
    alone = read_reference(tmp_path / "alone.npz", image_size=8)
    assert isinstance(alone, ReferenceStatistics)
    assert (alone.name, alone.statistics.mean.tolist()) == (str(tmp_path / "alone.npz"), mean.tolist())
    both = read_reference(tmp_path / "ref.npz", image_size=8)
    assert isinstance(both, SampleSet)
    assert both.statistics is not None
    for arrays in ({"mu": mean}, {"sigma": covariance}, {"x": mean}):
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(DataError, match="has no arr_0"):
            read_reference(tmp_path / "bad.npz", image_size=8)
    for bad, words in (
        ({"mu": mean, "sigma": np.eye(3)}, r"are float64 \[4\] and \[3, 3\]"),
        ({"mu": np.arange(4), "sigma": covariance}, "are int64"),
        ({"mu": mean * np.nan, "sigma": covariance}, "are not finite"),
    ):
        np.savez(tmp_path / "bad.npz", arr_0=images, **bad)
        with pytest.raises(DataError, match=f"mu and sigma of .*{words}"):
            read_npz(tmp_path / "bad.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "samples.npz"
    old = SampleSet(images=np.zeros((2, 8, 8, 3), np.uint8))
    write_npz(path, old)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        write_npz(path, SampleSet(images=np.ones((2, 8, 8, 3), np.uint8)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples.npz"]
    assert not read_npz(path).images.any()


def test_colour_cannot_become_gray():
    colour = SampleSet(images=np.array([[[[1, 2, 3]]]], np.uint8))
    assert not colour.is_gray
    with pytest.raises(DataError, match="colour"):
        colour.with_channels(1)


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": np.zeros((2, 8, 8, 3), np.uint8)},
        {"arr_0": np.zeros((2, 8, 8, 3), np.float32)},
        {"arr_0": np.zeros((2, 8, 8), np.uint8)},
        {"arr_0": np.zeros((2, 3, 8, 8), np.uint8)},
        {"arr_0": np.zeros((0, 8, 8, 3), np.uint8)},
        {"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.zeros(3, np.int64)},
        {"arr_0": np.zeros((2, 8, 8, 3), np.uint8), "arr_1": np.zeros(2, np.float32)},
        {"arr_0": np.array([{}, {}], dtype=object)},
    ],
    ids=["no arr_0", "float", "3 axes", "channels first", "empty", "label count", "float labels", "pickled objects"],
)
def test_read_npz_refuses(tmp_path, arrays):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match="arr_0: uint8"):
        read_npz(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_read_npz_refuses_what_is_no_npz(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(tmp_path / "bad.npz")


def test_read_npz_refuses_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no samples file"):
        read_npz(tmp_path / "none.npz")


@pytest.fixture
def shards(tmp_path):
    """Ten gray 8x8 images, image i all of level i, five of each of two classes."""
    for level in range(10):
        folder = tmp_path / "images" / f"class{level // 5}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(folder / f"{level}.png")
    write_image_shards(tmp_path / "images", tmp_path / "shards", workers=1)
    return tmp_path / "shards"


def test_read_shards(shards):
    everything = read_samples(shards)
    assert everything.images.shape == (10, 8, 8, 3)
    assert everything.is_gray
    assert everything.images[:, 0, 0, 0].tolist() == list(range(10))
    assert everything.labels is not None
    assert everything.labels.tolist() == [0] * 5 + [1] * 5
    assert everything.classes == ("class0", "class1")


def test_a_limit_takes_as_much_of_each_class(shards):
    some = read_samples(shards, limit=4, channels=1)
    assert some.images[:, 0, 0, 0].tolist() == [0, 2, 5, 7]
    assert some.labels is not None
    assert some.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(DataError, match="no images"):
        read_samples(shards, limit=0)


def test_shards_of_several_sizes_need_a_size(tmp_path):
    for side in (8, 10):
        folder = tmp_path / "images" / "only"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side), 7, np.uint8)).save(folder / f"{side}.png")
    write_image_shards(tmp_path / "images", tmp_path / "shards", workers=1)
    with pytest.raises(DataError, match=r"2 sizes.*give image_size"):
        read_samples(tmp_path / "shards")
    assert read_samples(tmp_path / "shards", image_size=8).images.shape == (2, 8, 8, 3)
