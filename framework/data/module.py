"""The data side of a training run: shards to batches, and where training stands in them."""

import logging
import warnings
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from framework.core.collectives import all_gather_object, rank_and_size
from framework.core.errors import ConfigError, DataError
from framework.core.serialization import from_json, to_json
from framework.data.images.transforms import ImageConfig, ImageTransform
from framework.data.loading.batch import ImageBatch, PixelBatch
from framework.data.loading.datasets import EpisodeDataset, ImageDataset
from framework.data.loading.device_copies import SideStream
from framework.data.loading.loader import LoadingConfig, ShardLoader, SizedIterable, start_workers_server
from framework.data.remote.files import RemoteConfig
from framework.data.sampling.batching import BatchPlan, MicroBatches
from framework.data.sampling.mixing import JoinedShards, LookAhead, Mixture
from framework.data.sampling.order import EpochOrder, OrderConfig, Position, Samples, SampleStream
from framework.data.sampling.progress import (
    Progress,
    check_limit,
    finished_batches,
    from_state,
    plan_for,
    recount,
    to_state,
    used_batches,
)
from framework.data.shards.manifest import Kind
from framework.data.shards.reader import ShardSet
from framework.tracking.data_identity import DataIdentity, SetIdentity, class_changes, data_changes
from framework.tracking.secrets import scrubbed_text

log = logging.getLogger(__name__)

Loader = ShardLoader[Any]
"""A loader of batches of whatever kind the shards are."""
OnChangedData = Literal["stop", "allow"]
"""What becomes of a run that would go on with other data than before."""


NUMBERS = {"batch_size": 1, "global_batch": 1, "seed": 0, "validation_samples": 1}
"""Numbers of a data module, each with the least that it may be."""


def check_numbers(**given: int | None) -> None:
    """Whether numbers of `NUMBERS` are in their ranges; those that are not given are.

    Raises:
        ConfigError: names the first that is not.
    """
    for name, value in given.items():
        if value is not None and value < NUMBERS[name]:
            raise ConfigError(f"data.{name} is {value}", hint=f"give at least {NUMBERS[name]}")


class ShardDataModule(LightningDataModule):
    """Images or episodes of shard sets.

    The order of the samples and their augmentation are pure functions of the seed and of how many samples training has
    finished. So a resumed run sees what the uninterrupted one would have seen, whatever the number of processes, of
    loader workers and of accumulated batches, as long as their product, the global batch, is the same; with another
    global batch, too, no sample comes twice and none is lost.
    The trainer must be made with `use_distributed_sampler=False`.

    Args:
        train: folder or URL of the shard set to train on, or the weights of several by folder: they are mixed as
            `framework.data.sampling.mixing` says.
        validation: folder of the shard set to validate on; without one there is no validation. Every process sees all
            of it: then the means need no communication, and sharded models make as many passes on every process.
        test: folder of the shard set to test on, in the same way.
        kind: what the shards hold.
        batch_size: micro-batch: samples in a batch on each process.
        global_batch: samples of one optimizer step over all processes; the trainer's accumulation follows from it.
            Without it, it is batch_size x processes x accumulation.
        seed: of the order and the augmentation.
        validation_samples: validate on this many samples, spread evenly over the set; all without it.
        images: size and augmentation of images.
        order: of the training samples.
        loading: the processes that decode, and what becomes of bad samples.
        remote: the cache, and how patient to be, where a set is a URL.
        on_changed_data: what a resume does where the training data are not those of the checkpoint: other class names,
            samples or another order of them, by `seed` and `order` too. `stop` says what differs, `allow` says so and
            goes on.

    Raises:
        ConfigError: a number out of range, fewer samples than a global batch, a global batch that does not divide, or
            classes or kinds that differ between the sets.
        DataError: a shard set that is missing or damaged.
    """

    def __init__(
        self,
        *,
        train: str | dict[str, float],
        batch_size: int,
        validation: str | None = None,
        test: str | None = None,
        kind: Kind = "images",
        global_batch: int | None = None,
        seed: int = 0,
        validation_samples: int | None = None,
        images: ImageConfig = ImageConfig(),
        order: OrderConfig = OrderConfig(),
        loading: LoadingConfig = LoadingConfig(),
        remote: RemoteConfig = RemoteConfig(),
        on_changed_data: OnChangedData = "stop",
    ) -> None:
        super().__init__()
        check_numbers(
            batch_size=batch_size, global_batch=global_batch, seed=seed, validation_samples=validation_samples
        )
        if not train:
            raise ConfigError(
                "data.train names no shard set", hint="give a folder, or the weights of several by folder"
            )
        self.train, self.validation, self.test = train, validation, test
        self.kind: Kind = kind
        self.batch_size, self.global_batch, self.seed = batch_size, global_batch, seed
        self.validation_samples = validation_samples
        self.images, self.order, self.loading, self.remote = images, order, loading, remote
        self.on_changed_data: OnChangedData = on_changed_data
        if kind == "images":
            self.train_transform = images.training_transform()
            self.validation_transform = images.evaluation_transform()
        self._progress = Progress(trainer=None, start=Position(), batches=0)
        self._plan = BatchPlan(micro_batch=batch_size)
        self._restored: dict[str, object] | None = None
        self._train_loader: Loader | None = None
        self._copies: SideStream | None = None

    @cached_property
    def train_sets(self) -> tuple[ShardSet, ...]:
        """The shard sets to train on, opened on first use."""
        paths = [self.train] if isinstance(self.train, str) else list(self.train)
        return tuple(ShardSet(path, remote=self.remote) for path in paths)

    @cached_property
    def validation_set(self) -> ShardSet | None:
        """The shard set to validate on, opened on first use."""
        return None if self.validation is None else ShardSet(self.validation, remote=self.remote)

    @cached_property
    def test_set(self) -> ShardSet | None:
        """The shard set to test on, opened on first use."""
        return None if self.test is None else ShardSet(self.test, remote=self.remote)

    @cached_property
    def stream(self) -> SampleStream:
        """The order of the training samples."""
        orders = [
            EpochOrder(
                [shard.num_samples for shard in each.manifest.shards],
                seed=self.seed,
                shuffle=self.order.shuffle,
                block_shards=self.order.block_shards,
                remainder=self.order.remainder,
            )
            for each in self.train_sets
        ]
        if isinstance(self.train, str):
            return orders[0]
        return Mixture(orders, list(self.train.values()))

    @cached_property
    def identity(self) -> DataIdentity:
        """Class names and digests, by which a checkpoint knows its data again."""
        validation = self.validation_set
        return DataIdentity(
            classes=self.class_names,
            train=tuple(_identity_of(each) for each in self.train_sets),
            validation=None if validation is None else _identity_of(validation),
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; a label is a position in it."""
        return self.train_sets[0].classes

    @property
    def num_classes(self) -> int:
        """Number of classes of the training set."""
        return len(self.class_names)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch of the trainer; known from `setup` on."""
        plan, trainer = self._plan, self.trainer
        whole = self.stream.usable(0, plan.global_batch) // plan.micro_step
        return -(-(whole if trainer is None else used_batches(trainer, whole)) // plan.accumulation)

    @property
    def num_bad_samples(self) -> int:
        """Different training samples that this process has replaced since its start, being bad."""
        return 0 if self._train_loader is None else len(self._train_loader.replaced)

    def setup(self, stage: str) -> None:
        """Opens the shard sets, so that what is wrong with them shows before the first step, and plans the batches.

        Raises:
            ConfigError: classes or kinds that differ between the sets, a stage without a set, or a global batch that
                does not divide.
            DataError: a shard set that is missing or damaged.
        """
        if self.loading.num_workers:
            start_workers_server()
        if self.validation is None and self.trainer is not None:
            if stage == "validate":
                raise ConfigError("there is no validation set", hint="give the folder of its shards as data.validation")
            # Lightning warns about an empty loader, and about a module that validates without one.
            self.trainer.limit_val_batches = 0
        if stage == "test" and self.test is None:
            raise ConfigError("there is no test set", hint="give the folder of its shards as data.test")
        sets = [*self.train_sets, *(each for each in (self.validation_set, self.test_set) if each is not None)]
        for each in sets:
            if each.manifest.kind != self.kind:
                hint = f"set data.kind to {each.manifest.kind}, or use other shards"
                raise ConfigError(f"{each.path} holds {each.manifest.kind}, and data.kind is {self.kind}", hint=hint)
            if each.classes != self.class_names:
                differing = [*sorted(set(each.classes) ^ set(self.class_names)), "their order"][0]
                problem = f"{sets[0].path} and {each.path} differ in their classes, such as {differing!r}"
                raise ConfigError(problem, hint="make both from sources with the same class folders")
        if stage == "fit":
            self._refuse_unlike_processes()
            self._plan = plan_for(self.trainer, batch_size=self.batch_size, global_batch=self.global_batch)
            self._progress = Progress(trainer=self.trainer, start=Position(), batches=0)

    def train_dataloader(self) -> Loader:
        """Loader of training batches, from where training stands."""
        stream, plan, trainer = self.stream, self._plan, self.trainer
        joined = JoinedShards(self.train_sets)
        if joined.is_remote and self.order.shuffle == "full":
            warnings.warn(
                "data.order.shuffle full reads from all shards at a time, and they are remote: the cache must hold the "
                "whole set; use data.order.shuffle block",
                stacklevel=2,
            )
        if self._restored is not None:
            start = from_state(self._restored, stream, plan)
            if trainer is not None:
                recount(trainer, start, stream, plan)
            self._progress = Progress(trainer=trainer, start=start, batches=finished_batches(trainer))
            self._restored = None
        # Not of this module, which has the loader: with such a cycle both would wait for a garbage collection, and in
        # one torch's workers do not hear that they are to end: it waits five seconds for each.
        progress = self._progress
        ahead = LookAhead(joined, block_shards=self.order.block_shards)
        batches = MicroBatches(stream, plan, lambda: progress.position(stream, plan), ahead=ahead)
        if trainer is not None:
            check_limit(trainer, len(batches), plan.accumulation)
        self._train_loader = self._loader(joined, batches, getattr(self, "train_transform", None))
        return self._train_loader

    def val_dataloader(self) -> Loader:
        """Loader of the validation samples, the last batch perhaps smaller; every process sees all of them."""
        assert self.validation_set is not None, "setup has switched validation off"
        return self._evaluation_loader(self.validation_set, self.validation_samples)

    def test_dataloader(self) -> Loader:
        """Loader of all test samples, the last batch perhaps smaller; every process sees all of them."""
        assert self.test_set is not None, "setup has refused to test without a set"
        return self._evaluation_loader(self.test_set, None)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """To a GPU on a stream of its own, so that the copy does not wait for what is computed.

        Args:
            batch: of the loader, or of another one that the trainer was given.
            device: of the training.
            dataloader_idx: of the loader.
        """
        if device.type != "cuda" or not isinstance(batch, ImageBatch | PixelBatch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        if self._copies is None:
            self._copies = SideStream(device)
        return self._copies.copy(batch)

    def on_after_batch_transfer(self, batch: object, dataloader_idx: int) -> object:
        """Normalises pixels on the device, where it costs nothing and a quarter of the bytes had to be moved."""
        return batch.images() if isinstance(batch, PixelBatch) else batch

    def state_dict(self) -> dict[str, object]:
        """Where training stands: samples of the optimizer steps that all processes have finished."""
        position = self._progress.position(self.stream, self._plan)
        return {**to_state(position), "order": self.stream.describe(), "data": to_json(self.identity)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Goes on from a checkpoint; the trainer's own counters are restored after this, before the loader is made.

        Raises:
            DataError: the data, or the order of the samples, are not those that the checkpoint was trained with.
        """
        self._compare(state_dict.get("data"))
        self._compare_order(state_dict.get("order"))
        self._restored = state_dict

    def _compare(self, saved: object) -> None:
        """Compares the data with those of a checkpoint; of one that only validates the class names alone."""
        rank = rank_and_size()[0]
        if saved is None:
            if rank == 0:
                log.info("the checkpoint is of before data were recorded: whether these are the same is not checked")
            return
        before, now = from_json(DataIdentity, saved, allow_missing=True, ignore_unknown=True), self.identity
        validates = self.trainer is not None and self.trainer.state.fn == "validate"
        changes = class_changes(before.classes, now.classes) if validates else data_changes(before, now)
        if changes and self.on_changed_data == "stop":
            raise DataError(
                f"the data are not those that the checkpoint was trained on ({'; '.join(changes)})",
                hint="give the data of before, use another --run.dir for a new run, or take these for them by "
                "--data.on_changed_data allow",
            )
        if before.validation and now.validation and before.validation.digest != now.validation.digest:
            changes.append(f"validation is on {now.validation.path}, which is another set than before")
        for change in changes if rank == 0 else ():
            log.warning("other data than before: %s", change)

    def _compare_order(self, before: object) -> None:
        """Compares the order of the samples with that of a checkpoint, of which there may be none; not to validate."""
        now = self.stream.describe()
        if before in (None, now) or (self.trainer is not None and self.trainer.state.fn == "validate"):
            return
        problem = f"the samples come in another order than in the checkpoint (was {before}; is {now})"
        consequence = "samples of this epoch may come twice or not at all"
        if self.on_changed_data == "stop":
            raise DataError(
                f"{problem}: {consequence}",
                hint="give data.seed, data.order and the weights of data.train as before, use another --run.dir for a "
                "new run, or go on all the same by --data.on_changed_data allow",
            )
        if rank_and_size()[0] == 0:
            log.warning("%s: %s", problem, consequence)

    def _refuse_unlike_processes(self) -> None:
        """Raises DataError where processes have opened different sets, such as copies on the disks of their nodes."""
        found = all_gather_object(self.identity)
        for rank, each in enumerate(found):
            if changes := data_changes(found[0], each):
                problem = f"process {rank} has other data than process 0 ({'; '.join(changes)})"
                raise DataError(problem, hint="copy one set to all nodes")

    def _evaluation_loader(self, shards: ShardSet, wanted: int | None) -> Loader:
        total = len(shards)
        count = min(wanted or total, total)
        # The shards are often sorted by class: evenly spread numbers take as much of each.
        numbers = np.arange(count) * total // count if count else np.zeros(0, dtype=np.int64)
        batches = [
            Samples(epoch=0, numbers=numbers[first : first + self.batch_size])
            for first in range(0, count, self.batch_size)
        ]
        return self._loader(JoinedShards([shards]), batches, getattr(self, "validation_transform", None))

    def _loader(self, joined: JoinedShards, batches: SizedIterable, transform: ImageTransform | None) -> Loader:
        seed, on_bad_sample = self.seed, self.loading.on_bad_sample
        dataset: Any
        if self.kind == "episodes":
            dataset = EpisodeDataset(joined, seed=seed, on_bad_sample=on_bad_sample)
        else:
            assert transform is not None, "images have a size"
            dataset = ImageDataset(joined, transform, seed=seed, on_bad_sample=on_bad_sample)
        return ShardLoader(
            dataset,
            batches,
            num_workers=self.loading.num_workers,
            max_bad_samples=self.loading.max_bad_samples,
            most_samples=self.batch_size,
            # Not wherever there is a GPU: a run on the CPU would start one for nothing.
            pinned=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )


def _identity_of(shards: ShardSet) -> SetIdentity:
    manifest = shards.manifest
    return SetIdentity(path=scrubbed_text(str(shards.path)), digest=manifest.digest, num_samples=manifest.num_samples)
