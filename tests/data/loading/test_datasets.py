"""Images are read as their set says, episodes are parsed, and bytes that are neither are bad samples."""

import io
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from framework.core.errors import DataError
from framework.data.convert.class_folders import write_image_shards
from framework.data.images.options import ReadOptions, UnreadableImage
from framework.data.images.transforms import ImageTransform, SampleRandom
from framework.data.loading.batch import EpisodeBatch, PixelBatch
from framework.data.loading.datasets import EpisodeDataset, ImageDataset
from framework.data.loading.loader import BadSample, Decode, ShardLoader
from framework.data.sampling.batching import BatchPlan, MicroBatches
from framework.data.sampling.mixing import JoinedShards
from framework.data.sampling.order import EpochOrder, Samples
from framework.data.shards.reader import ShardSet


class Episodes(ShardSet):
    """A set of episodes in memory."""

    def __init__(self, *values: bytes) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def read(self, number: int) -> tuple[bytes, int]:
        return self.values[number], -1

    def describe(self, number: int) -> str:
        return f"sample {number}"


def test_episodes_are_parsed():
    values = [{"task": number, "steps": [{"text": "é"}]} for number in range(6)]
    shards = JoinedShards([Episodes(*(json.dumps(value).encode() for value in values))])
    order = EpochOrder([6], shuffle="none")
    loader = ShardLoader(EpisodeDataset(shards), MicroBatches(order, BatchPlan(micro_batch=3)))
    batches = list(islice(loader, 2))
    assert [len(batch) for batch in batches] == [3, 3]
    assert [episode for batch in batches for episode in batch.episodes] == values
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(6))
    batch = batches[0]
    assert isinstance(batch, EpisodeBatch)
    assert batch.to("meta") is batch.pin_memory() is batch
    assert (batch.epoch, batch.sample_passes()) == (0, [0, 0, 0])


@pytest.mark.parametrize("bad", [b"{", b"\xff", b""])
def test_bytes_that_are_no_json(bad: bytes):
    shards = JoinedShards([Episodes(b"0", bad, b"2")])
    order, plan = EpochOrder([3], shuffle="none"), BatchPlan(micro_batch=3)
    with pytest.raises(DataError, match=r"sample 1 cannot be decoded \(.+\)"):
        list(ShardLoader(EpisodeDataset(shards), MicroBatches(order, plan)))
    with pytest.warns(UserWarning, match="sample 1 cannot be decoded"):
        (batch,) = ShardLoader(EpisodeDataset(shards, on_bad_sample="skip"), MicroBatches(order, plan))
    assert (batch.episodes, batch.indices.tolist(), [each.number for each in batch.replaced]) == (
        (0, 2, 2),
        [0, 2, 2],
        [1],
    )


def shards_of(path: Path, images: dict[str, bytes], **options: str) -> ShardSet:
    (path / "images" / "cat").mkdir(parents=True)
    for name, data in images.items():
        (path / "images" / "cat" / name).write_bytes(data)
    write_image_shards(path / "images", path / "shards", read=ReadOptions(**options))
    return ShardSet(path / "shards")


def gradient(format: str, **options: object) -> bytes:
    """Darker to the left."""
    stream = io.BytesIO()
    Image.linear_gradient("L").rotate(90).resize((64, 64)).save(stream, format, **options)
    return stream.getvalue()


def pixels_of(dataset: ImageDataset, number: int) -> torch.Tensor:
    batch = dataset.batch(Samples(epoch=0, numbers=np.array([number])))
    assert isinstance(batch, PixelBatch)
    return batch.pixels[0, ..., 0].float()


def test_each_set_is_read_as_it_says_or_as_the_recipe_does(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 3
    data = {"1.png": gradient("png", exif=exif), "2.png": gradient("png")}
    sets = [shards_of(tmp_path / name, data, orientation=name) for name in ("apply", "ignore")]
    for read, is_turned in (
        (None, [True, False, False, False]),
        (ReadOptions(), [True, False, True, False]),
        (ReadOptions(orientation="ignore"), [False] * 4),
    ):
        dataset = ImageDataset(JoinedShards(sets), ImageTransform(size=8, channels=1, read=read))
        left_to_right = [pixels_of(dataset, number)[0].diff().sign().sum() > 0 for number in range(4)]
        assert [not rising for rising in left_to_right] == is_turned


def test_damaged_images_are_trained_on_only_where_that_was_asked_for(tmp_path: Path):
    data = gradient("jpeg")
    images = {"1.jpg": data, "2.jpg": data[: len(data) - 150] + b"\xff\xd9"}
    shards = shards_of(tmp_path, images, damaged="keep")
    pixels_of(ImageDataset(JoinedShards([shards]), ImageTransform(size=8, channels=1)), 1)
    refusing = ImageTransform(size=8, channels=1, read=ReadOptions())
    with pytest.raises(DataError, match=r"cannot be decoded \(damaged: .*data.images.read.damaged keep"):
        pixels_of(ImageDataset(JoinedShards([shards]), refusing), 1)
    dataset = ImageDataset(JoinedShards([shards]), refusing, on_bad_sample="skip")
    batch = dataset.batch(Samples(epoch=0, numbers=np.array([1])))
    assert isinstance(batch, PixelBatch)
    assert [each.number for each in batch.replaced] == [1]


def test_whatever_fails_in_a_decoder_names_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shards = JoinedShards([shards_of(tmp_path, {"1.png": gradient("png"), "2.png": gradient("png")})])

    def fail(*_: object) -> None:
        raise IndexError("inside of a decoder")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(DataError, match=r"sample 0 .* cannot be decoded \(inside of a decoder\)"):
        pixels_of(ImageDataset(shards, ImageTransform(size=8)), 0)


def photo(seed: int, size: tuple[int, int] = (8, 8), **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def mixed_sets(tmp_path_factory: pytest.TempPathFactory) -> JoinedShards:
    """Two sets with images of all sizes; some of the files are damaged."""
    folder = tmp_path_factory.mktemp("mixed")
    exif = Image.Exif()
    exif[0x0112] = 8
    images = {f"{seed}.jpg": photo(seed) for seed in range(6)}
    images |= {f"{seed}.jpg": photo(seed, (8 + seed, 12)) for seed in range(6, 12)}
    images |= {"12.jpg": photo(12, exif=exif), "13.jpg": photo(13, (8, 80)), "14.png": gradient("png")}
    images |= {"15.jpg": photo(15)[:-40] + b"\xff\xd9", "16.jpg": photo(16, quality=20), "17.jpg": photo(17)[:-50]}
    sets = []
    for name, (read, few) in {"a": ("keep", images), "b": ("refuse", dict(list(images.items())[:9]))}.items():
        sets.append(shards_of(folder / name, few, damaged=read))
    return JoinedShards(sets)


def one_by_one(transform: ImageTransform, pixels: np.ndarray, mirrored: np.ndarray) -> Decode:
    def decode(place: int, data: bytes, passed: int, number: int) -> None:
        try:
            mirrored[place] = transform.place(data, pixels[place], SampleRandom(5, passed, number))
        except UnreadableImage as error:
            raise BadSample(str(error)) from None

    return decode


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_what_its_samples_are_one_by_one(mixed_sets: JoinedShards, channels: int):
    transform = ImageTransform(size=8, channels=channels, crop="random", flip=True, read=ReadOptions())
    dataset = ImageDataset(mixed_sets, transform, seed=5, on_bad_sample="skip")
    rng, replaced = np.random.default_rng(0), 0
    for numbers in (rng.permutation(len(mixed_sets)), rng.integers(0, len(mixed_sets), 30)):
        passes = rng.integers(0, 9, len(numbers))
        batch = dataset.batch(Samples(epoch=1, numbers=numbers, passes=passes))
        assert isinstance(batch, PixelBatch)
        pixels, mirrored = np.empty((len(numbers), 8, 8, channels), dtype=np.uint8), np.zeros(len(numbers), dtype=bool)
        decode = one_by_one(transform, pixels, mirrored)
        loaded = dataset.load(Samples(epoch=1, numbers=numbers, passes=passes), decode)
        np.testing.assert_array_equal(batch.pixels.numpy(), pixels)
        assert batch.indices.tolist() == loaded.numbers
        assert batch.labels.tolist() == loaded.labels
        assert batch.mirrored.tolist() == np.flatnonzero(mirrored).tolist()
        assert list(batch.replaced) == loaded.replaced
        replaced += len(loaded.replaced)
    assert replaced > 0


def test_the_first_bad_sample_of_a_batch_is_named_wherever_it_lies(mixed_sets: JoinedShards):
    dataset = ImageDataset(mixed_sets, ImageTransform(size=8, read=ReadOptions()))
    bad = [number for number in range(len(mixed_sets)) if not is_good(dataset, number)]
    for numbers in ([0, bad[-1], bad[0]], [0, bad[0], bad[-1]]):
        with pytest.raises(DataError, match=f"sample {numbers[1]} "):
            dataset.batch(Samples(epoch=0, numbers=np.array(numbers)))


def is_good(dataset: ImageDataset, number: int) -> bool:
    try:
        dataset.batch(Samples(epoch=0, numbers=np.array([number])))
    except DataError:
        return False
    return True
