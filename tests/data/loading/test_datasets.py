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
from framework.data.images.options import ReadOptions
from framework.data.images.transforms import ImageTransform
from framework.data.loading.batch import EpisodeBatch, PixelBatch
from framework.data.loading.datasets import EpisodeDataset, ImageDataset
from framework.data.loading.loader import ShardLoader
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
