"""Memory that carries batches is used again, and never while anything can still see it."""

import gc
from collections import deque
from pathlib import Path

import pytest
import torch

from framework.data.images.transforms import ImageConfig
from framework.data.loading.batch import PixelBatch
from framework.data.loading.loader import LoadingConfig, ShardLoader
from framework.data.loading.shared_buffers import InBuffer, SharedBuffers
from framework.data.module import ShardDataModule
from framework.testing.images import make_image_shards


@pytest.mark.slow
def test_a_place_is_free_when_nothing_refers_to_it():
    buffers = SharedBuffers(2, 12)
    first, second = buffers.ask(), buffers.ask()
    assert {first, second} == {0, 1}
    assert buffers.ask() is None
    assert first is not None
    buffers.view(first, (2, 6)).fill(3)
    lent = buffers.lend(first, (2, 6))
    views = [lent[1], lent.view(3, 4), lent.numpy()[0], lent.permute(1, 0)]
    del lent
    while views:
        assert buffers.ask() is None
        assert int(views[-1].reshape(-1)[0]) == 3
        views.pop()
    gc.collect()
    assert buffers.ask() == first


def test_what_never_came_is_taken_back():
    buffers = SharedBuffers(2, 4)
    taken = [buffers.ask(), buffers.ask()]
    assert taken[0] is not None
    lent = buffers.lend(taken[0], (4,))
    buffers.forget()
    assert [buffers.ask(), buffers.ask()] == [taken[1], None]
    del lent
    assert buffers.ask() == taken[0]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("buffers")
    make_image_shards(path, per_class=60, size=16)
    return path / "shards"


def loader(shards: Path, num_workers: int) -> ShardLoader[PixelBatch]:
    data = ShardDataModule(
        train=str(shards),
        validation=str(shards),
        batch_size=8,
        images=ImageConfig(size=16, flip=True),
        loading=LoadingConfig(num_workers=num_workers),
    )
    return data.train_dataloader()


@pytest.mark.slow
def test_batches_that_are_kept_never_change(shards: Path):
    """Kept ones, all of them, some, in parts; iterations that are left half-way."""
    expected = [batch.images().images for batch in loader(shards, 0)]
    used = loader(shards, 2)
    everything = list(used)
    kept: deque[tuple[int, torch.Tensor, torch.Tensor]] = deque(maxlen=5)
    for number in range(3):
        for place, batch in enumerate(used):
            images = batch.images().images
            kept.append((place, batch.pixels[3], batch.pixels[3].clone()))
            for _, part, copy in kept:
                assert torch.equal(part, copy)
            if number == 1 and place == 4:
                break
            if number != 1:
                assert torch.equal(images, expected[place])
    for batch, images in zip(everything, expected, strict=True):
        assert torch.equal(batch.images().images, images)


def test_workers_write_where_they_are_told(shards: Path):
    used = loader(shards, 1)
    buffers = used.dataset.buffers  # type: ignore[attr-defined]
    places = set()
    for batch in used:
        places.add(batch.pixels.data_ptr() - buffers._memory.data_ptr())
        assert places <= {place * 8 * 16 * 16 * 3 for place in range(6)}
    assert len(places) <= 4  # Those in use at a time, and not all there are.


def test_batch_travels_without_pixels(shards: Path):
    data = ShardDataModule(
        train=str(shards), batch_size=8, images=ImageConfig(size=16), loading=LoadingConfig(num_workers=1)
    )
    used = data.train_dataloader()
    buffers = used.dataset.buffers  # type: ignore[attr-defined]
    samples = next(iter(used.batch_sampler)).samples  # type: ignore[union-attr]
    batch = used.dataset.batch(samples, 3)  # type: ignore[attr-defined]
    assert isinstance(batch, InBuffer)
    plain = used.dataset.batch(samples)  # type: ignore[attr-defined]
    assert torch.equal(batch.batch().pixels, plain.pixels)
    assert (buffers.view(3, batch.shape) == plain.pixels.numpy()).all()
