"""Samples to batches: the map-style dataset over a shard set, and its loader."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from framework.data.batch import ImageBatch
from framework.data.reader import ShardSet
from framework.data.transforms import ImageTransform, sample_rng
from framework.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """One image, float32 in [-1, 1], and its class number."""

    image: Float[Tensor, "channel height width"]
    label: int


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """A DataError on its way out of a worker process."""

    problem: str
    mend: str


class ImageDataset(Dataset[ImageSample]):
    """Decoded images of a shard set, by (epoch, number).

    Args:
        shards: where they are.
        transform: from bytes to a tensor.
        seed: of the augmentation, which depends on it, the epoch and the number alone.
    """

    def __init__(self, shards: ShardSet, transform: ImageTransform, *, seed: int = 0) -> None:
        self.shards = shards
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, position: tuple[int, int]) -> ImageSample:
        """The sample at (epoch, number).

        Raises:
            DataError: it cannot be read or decoded.
        """
        epoch, number = position
        data, label = self.shards.read(number)
        rng = sample_rng(self.seed, epoch, number)
        return ImageSample(image=self.transform(data, rng, name=self.shards.describe(number)), label=label)

    def __getitems__(self, positions: list[tuple[int, int]]) -> ImageBatch | _Failure:
        """A whole batch, of one epoch; torch's loader asks for this where it is there."""
        try:
            samples = [self[position] for position in positions]
        except DataError as error:
            # Raised in a worker process it would arrive as a RuntimeError around a printed traceback.
            return _Failure(problem=error.problem, mend=error.mend)
        return ImageBatch(
            images=torch.stack([sample.image for sample in samples]),
            labels=torch.tensor([sample.label for sample in samples]),
            indices=torch.tensor([number for _, number in positions]),
            epoch=positions[0][0],
        )


class ImageLoader(DataLoader[ImageSample]):
    """The loader of an ImageDataset: yields ImageBatch, and raises a worker's DataError as it was.

    Args:
        dataset: the images.
        order: (epoch, number) pairs.
        batch_size: images of a batch.
        drop_last: leave an incomplete last batch out.
        num_workers: processes that decode; 0 decodes in this one.
    """

    def __init__(
        self, dataset: ImageDataset, order: Any, *, batch_size: int, drop_last: bool, num_workers: int = 0
    ) -> None:
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=order,
            drop_last=drop_last,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_it_is,
            # A loader draws a number whenever it is iterated; from the global generator, a resumed run would draw more.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[ImageBatch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for batch in super().__iter__():
            if isinstance(batch, _Failure):
                raise DataError(batch.problem, mend=batch.mend)
            yield batch

    # Lightning takes a loader with these two for one that can resume, and warns about any other. Their content stays
    # empty: the position belongs to the data module, which has it at the end of an epoch too.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def _as_it_is(batch: Any) -> Any:
    """The dataset has put the batch together already."""
    return batch
