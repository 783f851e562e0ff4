"""The data module under a real Trainer: what is seen, and that a resumed run sees the rest of it."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from framework.data.batch import ImageBatch
from framework.data.module import ShardDataModule
from framework.errors import ConfigError, DataError
from framework.testing.images import make_image_shards

pytestmark = [
    # Lightning wants more workers than a test needs.
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    # Lightning 2.6 uses a class that torch 2.13 has deprecated.
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*"),
]

NUM_SAMPLES, BATCH = 22, 4
BATCHES_PER_EPOCH = NUM_SAMPLES // BATCH


class Recorder(LightningModule):
    """Notes what it is trained on; the loss depends on the augmented pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, list[int], float]] = []

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        ramp = torch.linspace(0, 1, batch.images.numel()).view_as(batch.images)
        self.seen.append((batch.epoch, batch.indices.tolist(), float((batch.images * ramp).sum())))
        return self.layer(batch.images.mean().view(1)).sum()

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class SaveAt(Callback):
    """Saves after `batches` finished batches, in the hook of the given name."""

    def __init__(self, path: Path, batches: int, hook: str) -> None:
        self.path, self.batches, self.finished = path, batches, 0
        setattr(self, hook, self.save)
        self.count_here = hook != "on_train_batch_end"
        if self.count_here:
            self.on_train_batch_end = self.count  # pyright: ignore[reportAttributeAccessIssue]

    def count(self, *_: object) -> None:
        self.finished += 1

    def save(self, trainer: Trainer, *_: object) -> None:
        self.finished += not self.count_here
        if self.finished == self.batches and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("module")
    make_image_shards(path, per_class=NUM_SAMPLES // 2, size=(10, 8), samples_per_shard=5)
    return str(path / "shards")


def make_data(shards: str, **changes: object) -> ShardDataModule:
    arguments = {"train": shards, "image_size": 8, "batch_size": BATCH, "crop": "random", "flip": True, **changes}
    return ShardDataModule(**arguments)


def fit(shards: str, *, resume: Path | None = None, callbacks: list[Callback] | None = None, **changes: object):
    """What a training of the given length sees: (epoch, indices, a number made of the pixels) of every batch."""
    data = {key: changes.pop(key) for key in ("num_workers", "validation", "batch_size") if key in changes}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=callbacks,
        **changes,
    )
    model = Recorder()
    trainer.fit(model, make_data(shards, **data), ckpt_path=resume, weights_only=False)
    return model.seen


@pytest.fixture(scope="module")
def uninterrupted(shards: str):
    return fit(shards, max_epochs=4)


def test_each_epoch_has_every_sample_at_most_once_and_whole_batches(uninterrupted):
    assert len(uninterrupted) == 4 * BATCHES_PER_EPOCH
    orders = []
    for epoch in range(4):
        batches = uninterrupted[epoch * BATCHES_PER_EPOCH : (epoch + 1) * BATCHES_PER_EPOCH]
        assert {number for number, _, _ in batches} == {epoch}
        orders.append([index for _, indices, _ in batches for index in indices])
        assert len(set(orders[-1])) == BATCHES_PER_EPOCH * BATCH
    assert len({tuple(order) for order in orders}) == 4


def test_workers_do_not_matter(shards: str, uninterrupted):
    assert fit(shards, max_epochs=2, num_workers=2) == uninterrupted[: 2 * BATCHES_PER_EPOCH]


# Of an epoch of 5 batches: after its first, before its last, at its end, in the middle of the next.
@pytest.mark.parametrize("length", [{"max_epochs": 4}, {"max_steps": None}], ids=["epochs", "steps"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("batches", [1, 4, 5, 8])
@pytest.mark.parametrize("validate", [False, True], ids=["", "validate"])
def test_resume_goes_on_as_if_uninterrupted(
    shards: str, uninterrupted, tmp_path: Path, batches: int, accumulate: int, length: dict, validate: bool
):
    if "max_steps" in length:  # Lightning steps at the end of an epoch too.
        length = {"max_epochs": -1, "max_steps": 4 * -(-BATCHES_PER_EPOCH // accumulate)}
    changes = {**length, "accumulate_grad_batches": accumulate, "validation": shards if validate else None}
    checkpoint = tmp_path / "middle.ckpt"
    save = SaveAt(checkpoint, batches, "on_train_batch_end")
    assert fit(shards, callbacks=[save], **changes) == uninterrupted
    assert torch.load(checkpoint, weights_only=True)["ShardDataModule"] == {"samples_consumed": batches * BATCH}
    assert fit(shards, resume=checkpoint, **changes) == uninterrupted[batches:]


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_end"])
@pytest.mark.parametrize("length", [{"max_epochs": 4}, {"max_epochs": -1, "max_steps": 20}], ids=["epochs", "steps"])
def test_resume_from_the_end_of_an_epoch(shards: str, uninterrupted, tmp_path: Path, hook: str, length: dict):
    checkpoint = tmp_path / "end.ckpt"
    save = SaveAt(checkpoint, 2 * BATCHES_PER_EPOCH, hook)
    fit(shards, callbacks=[save], validation=shards, **length)
    resumed = fit(shards, resume=checkpoint, validation=shards, **length)
    assert resumed == uninterrupted[2 * BATCHES_PER_EPOCH :]


@pytest.mark.parametrize("batches", [3, 5])
def test_resume_with_workers(shards: str, uninterrupted, tmp_path: Path, batches: int):
    checkpoint = tmp_path / "middle.ckpt"
    fit(shards, max_epochs=2, num_workers=2, callbacks=[SaveAt(checkpoint, batches, "on_train_batch_end")])
    assert fit(shards, max_epochs=4, num_workers=2, resume=checkpoint) == uninterrupted[batches:]


def test_shortened_epochs_go_on_with_the_next_samples(shards: str, uninterrupted, tmp_path: Path):
    checkpoint = tmp_path / "middle.ckpt"
    changes = {"max_epochs": 5, "limit_train_batches": 3}
    seen = fit(shards, callbacks=[SaveAt(checkpoint, 7, "on_train_batch_end")], **changes)
    assert seen == uninterrupted[:15]
    assert fit(shards, resume=checkpoint, **changes) == uninterrupted[7:15]


def test_resume_with_another_batch_size_keeps_the_sample_count(shards: str, tmp_path: Path):
    checkpoint = tmp_path / "middle.ckpt"
    seen = fit(shards, max_epochs=2, callbacks=[SaveAt(checkpoint, 2, "on_train_batch_end")])
    resumed = fit(shards, max_epochs=1, batch_size=2, resume=checkpoint)
    # 8 samples are consumed: the third batch of 4 comes as two batches of 2.
    assert resumed[0][1] + resumed[1][1] == seen[2][1]


def test_loader_keeps_the_global_random_state(shards: str):
    data = make_data(shards)
    before = torch.get_rng_state()
    list(data.train_dataloader())
    assert torch.equal(before, torch.get_rng_state())


def test_validation_sample_is_spread_over_the_classes(shards: str):
    data = make_data(shards, validation=shards, validation_samples=6)
    data.setup("fit")
    batches = list(data.val_dataloader())
    assert [len(batch) for batch in batches] == [4, 2]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 0, 0, 1, 1, 1]


def test_classes(shards: str):
    data = make_data(shards)
    assert (data.num_classes, data.class_names) == (2, ("cat", "dog"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 23}, "22 samples are fewer than a batch of 23"),
    ],
)
def test_wrong_arguments(shards: str, changes: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        make_data(shards, **changes).train_dataloader()


def test_missing_shards(tmp_path: Path):
    with pytest.raises(DataError, match=r"no shard set at .*missing"):
        make_data(str(tmp_path / "missing")).setup("fit")


def test_validation_without_a_set(shards: str):
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    with pytest.raises(ConfigError, match="there is no validation set"):
        trainer.validate(Recorder(), make_data(shards))


def test_other_classes_in_validation(shards: str, tmp_path: Path):
    make_image_shards(tmp_path, classes=("cat", "cow"), per_class=1)
    with pytest.raises(ConfigError, match="differ in their classes, such as 'cow'"):
        make_data(shards, validation=str(tmp_path / "shards")).setup("fit")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_undecodable_sample_is_a_data_error(tmp_path: Path, num_workers: int):
    make_image_shards(tmp_path, per_class=2)
    shard = tmp_path / "shards" / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"\x89PNG", b"\x00PNG"))
    data = make_data(str(tmp_path / "shards"), num_workers=num_workers)
    with pytest.raises(DataError, match=r"sample \d \(byte \d+ of .*shard-000000.tar\) cannot be decoded"):
        list(data.train_dataloader())
