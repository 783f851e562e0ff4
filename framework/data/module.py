"""The data side of a training run: shards to batches, and where training stands in them."""

from functools import cached_property
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.loops.progress import _ProcessedTracker

from framework.data.loader import ImageDataset, ImageLoader
from framework.data.order import SampleOrder
from framework.data.reader import ShardSet
from framework.data.transforms import ImageTransform
from framework.errors import ConfigError


class ShardDataModule(LightningDataModule):
    """Images of shard sets that `framework shards images` wrote.

    The order of the samples and their augmentation are pure functions of the seed and of how many samples training
    has finished, so a resumed run sees what the uninterrupted one would have seen, whatever the number of workers.
    The trainer must be made with `use_distributed_sampler=False`.

    Args:
        train: folder of the shard set to train on.
        validation: folder of the shard set to validate on; without one there is no validation.
        image_size: side of the square images in pixels; larger and smaller ones are resized.
        channels: 3 for RGB, 1 for grayscale.
        batch_size: images in a batch on each process.
        crop: where the square is cut from an image that is not square: "random" (training only) or "center".
        flip: mirror training images left and right with probability 1/2.
        num_workers: processes that decode images; 0 decodes in the training process.
        shuffle: a new order of the training images in every epoch; without it, that of the shards.
        seed: of the order and the augmentation.
        validation_samples: validate on this many images, spread evenly over the set; all without it.

    Raises:
        ConfigError: a number out of range, fewer images than a batch, or classes that differ between the two sets.
        DataError: a shard set that is missing or damaged.
    """

    def __init__(
        self,
        *,
        train: str,
        image_size: int,
        batch_size: int,
        validation: str | None = None,
        channels: Literal[1, 3] = 3,
        crop: Literal["random", "center"] = "center",
        flip: bool = False,
        num_workers: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        validation_samples: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, minimum in (
            ("image_size", image_size, 1),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
            ("validation_samples", validation_samples, 1),
        ):
            if value is not None and value < minimum:
                raise ConfigError(f"{name} is {value}", mend=f"give at least {minimum}")
        self.train = train
        self.validation = validation
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.shuffle = shuffle
        self.seed = seed
        self.validation_samples = validation_samples
        self.train_transform = ImageTransform(size=image_size, channels=channels, crop=crop, flip=flip)
        self.validation_transform = ImageTransform(size=image_size, channels=channels)
        # Samples consumed before the batches that the trainer has counted: not 0 after a change of the batch size.
        self._offset = 0
        self._resumed_at: int | None = None

    @cached_property
    def train_set(self) -> ShardSet:
        """The shard set to train on, opened on first use."""
        return ShardSet(self.train)

    @cached_property
    def validation_set(self) -> ShardSet | None:
        """The shard set to validate on, opened on first use."""
        return None if self.validation is None else ShardSet(self.validation)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; a label is a position in it."""
        return self.train_set.classes

    @property
    def num_classes(self) -> int:
        """Number of classes of the training set."""
        return len(self.class_names)

    def setup(self, stage: str) -> None:
        """Opens the shard sets, so that what is wrong with them shows before the first step.

        Raises:
            ConfigError: classes that differ between the two sets, or a validation without a set.
            DataError: a shard set that is missing or damaged.
        """
        names = self.class_names
        if self.validation is None and self.trainer is not None:
            if stage == "validate":
                raise ConfigError("there is no validation set", mend="give the folder of its shards as data.validation")
            # Lightning warns about an empty loader, and about a module that validates without one.
            self.trainer.limit_val_batches = 0
        if self.validation_set is not None and self.validation_set.classes != names:
            differing = sorted(set(self.validation_set.classes) ^ set(names))
            problem = f"{self.train} and {self.validation} differ in their classes, such as {differing[0]!r}"
            raise ConfigError(problem, mend="make both from sources with the same class folders")

    def train_dataloader(self) -> ImageLoader:
        """Loader of whole training batches, from where training stands."""
        if self._resumed_at is not None:
            self._offset = self._resumed_at - self._samples_counted()
            self._resumed_at = None
        order = SampleOrder(
            num_samples=len(self.train_set),
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=self.shuffle,
            rank=0 if self.trainer is None else self.trainer.global_rank,
            num_ranks=self._num_ranks(),
            consumed=lambda: self._samples_counted() + self._offset,
        )
        dataset = ImageDataset(self.train_set, self.train_transform, seed=self.seed)
        return ImageLoader(dataset, order, batch_size=self.batch_size, drop_last=True, num_workers=self.num_workers)

    def val_dataloader(self) -> ImageLoader:
        """Loader of the validation images, the last batch perhaps smaller; every process sees all of them."""
        assert self.validation_set is not None, "setup has switched validation off"
        total = len(self.validation_set)
        count = min(self.validation_samples or total, total)
        # The shards are sorted by class: evenly spread numbers take as much of each.
        numbers = [(0, number * total // count) for number in range(count)]
        dataset = ImageDataset(self.validation_set, self.validation_transform, seed=self.seed)
        return ImageLoader(dataset, numbers, batch_size=self.batch_size, drop_last=False, num_workers=self.num_workers)

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: samples that all processes have finished since its start."""
        return {"samples_consumed": self._samples_counted() + self._offset}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint; the trainer's own counters are restored after this, before the loader is made."""
        self._resumed_at = state_dict["samples_consumed"]

    def _samples_counted(self) -> int:
        """Samples in the batches that the trainer has finished: `processed` counts one before its end hooks."""
        if self.trainer is None:
            return 0
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.total
        assert isinstance(batches, _ProcessedTracker)
        return batches.processed * self.batch_size * self._num_ranks()

    def _num_ranks(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size
