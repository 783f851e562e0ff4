"""The data module under a real Trainer: what is seen, and that a resumed run sees the rest of it."""

import json
import re
import shutil
import weakref
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerState
from torch import Tensor

from framework.core.errors import ConfigError, DataError
from framework.core.serialization import to_json
from framework.data.convert.class_folders import write_image_shards
from framework.data.convert.jsonl import write_jsonl_shards
from framework.data.images.transforms import ImageConfig
from framework.data.loading.batch import ImageBatch
from framework.data.loading.loader import LoadingConfig
from framework.data.module import ShardDataModule
from framework.data.sampling.order import OrderConfig
from framework.data.shards.reader import ShardSet
from framework.data.shards.writer import WriteOptions
from framework.testing.images import make_image_shards
from framework.testing.processes.forked import run_forked

pytestmark = [
    # Lightning wants more workers than a test needs.
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    # Lightning 2.6 uses a class that torch 2.13 has deprecated.
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*"),
]

NUM_SAMPLES, BATCH = 22, 4
BATCHES_PER_EPOCH = NUM_SAMPLES // BATCH
EPOCH = BATCHES_PER_EPOCH * BATCH
DATA_OPTIONS = ("validation", "batch_size", "global_batch", "train", "loading", "order")
GROUPS = {"images": ImageConfig, "order": OrderConfig, "loading": LoadingConfig}


class Recorder(LightningModule):
    """Notes what it is trained on; the loss depends on the augmented pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, int, float]] = []

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        ramp = torch.linspace(0, 1, batch.images[0].numel()).view_as(batch.images[0])
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            self.seen.append((batch.epoch, index, float((image * ramp).sum())))
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


def make_data(shards: str | dict[str, float], **changes: object) -> ShardDataModule:
    """A data module; groups are given as the changes of a dict."""
    images = {"size": 8, "crop": "random", "flip": True}
    arguments: dict[str, Any] = {"train": shards, "images": images, "batch_size": BATCH, **changes}
    groups = {name: kind(**arguments.pop(name, {})) for name, kind in GROUPS.items()}
    return ShardDataModule(**arguments, **groups)


def fit(shards: str, *, resume: Path | None = None, callbacks: list[Callback] | None = None, **changes: object):
    """What a training of the given length sees: (epoch, index, a number made of the pixels) of every sample."""
    data = {key: changes.pop(key) for key in (*DATA_OPTIONS,) if key in changes}
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
    assert len(uninterrupted) == 4 * EPOCH
    orders = []
    for epoch in range(4):
        samples = uninterrupted[epoch * EPOCH : (epoch + 1) * EPOCH]
        assert {number for number, _, _ in samples} == {epoch}
        orders.append([index for _, index, _ in samples])
        assert len(set(orders[-1])) == EPOCH
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.slow
def test_workers_do_not_matter(shards: str, uninterrupted):
    assert fit(shards, max_epochs=2, loading={"num_workers": 2}) == uninterrupted[: 2 * EPOCH]


def test_a_loader_ends_with_its_last_reference(shards: str):
    # In a garbage collection, torch's workers would not hear of it.
    data = ShardDataModule(train=shards, validation=shards, images=ImageConfig(size=8, channels=1), batch_size=BATCH)
    loaders = [data.train_dataloader(), data.val_dataloader()]
    for loader in loaders:
        next(iter(loader))
    references = [weakref.ref(each) for each in (data, *loaders)]
    del data, loaders, loader
    assert [reference() for reference in references] == [None] * 3


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_does_not_matter(shards: str, uninterrupted, accumulate: int):
    changes = {"batch_size": BATCH // accumulate, "accumulate_grad_batches": accumulate}
    assert fit(shards, max_epochs=2, **changes) == uninterrupted[: 2 * EPOCH]


# Of an epoch of 5 batches: after its first, before its last, at its end, in the middle of the next. The batches may be
# made of two micro-batches before the resume, after it, or always; a checkpoint between the two has the step before.
SAVED_AFTER = (1, 4, 5, 8)
LENGTHS: dict[str, dict[str, int]] = {"epochs": {"max_epochs": 4}, "steps": {"max_epochs": -1, "max_steps": 20}}


def micro_batches(batches: int, accumulate: int) -> int:
    """After which a checkpoint is written."""
    return batches * accumulate - (1 if accumulate > 1 and batches in (1, 8) else 0)


def how(shards: str, length: str, validate: bool, accumulate: int) -> dict[str, Any]:
    validation = shards if validate else None
    size = {"accumulate_grad_batches": accumulate, "batch_size": BATCH // accumulate}
    return {**LENGTHS[length], "validation": validation, **size}


@pytest.fixture(scope="module")
def checkpoints(shards: str, uninterrupted, tmp_path_factory: pytest.TempPathFactory):
    """By micro-batches, the checkpoints of a run that sees what it would have without them; each run is made once."""

    @cache
    def train(length: str, validate: bool, accumulate: int) -> dict[int, Path]:
        folder = tmp_path_factory.mktemp("checkpoints")
        paths = {number: folder / f"{number}.ckpt" for number in (micro_batches(b, accumulate) for b in SAVED_AFTER)}
        saves: list[Callback] = [SaveAt(path, number, "on_train_batch_end") for number, path in paths.items()]
        assert fit(shards, callbacks=saves, **how(shards, length, validate, accumulate)) == uninterrupted
        return paths

    return train


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("accumulate", [(1, 1), (2, 2), (1, 2), (4, 1)], ids=str)
@pytest.mark.parametrize("batches", SAVED_AFTER)
@pytest.mark.parametrize("validate", [False, True], ids=["", "validate"])
def test_resume_goes_on_as_if_uninterrupted(
    shards: str, uninterrupted, checkpoints, batches: int, accumulate: tuple[int, int], length: str, validate: bool
):
    before, after = accumulate
    number = micro_batches(batches, before)
    steps = number // before
    checkpoint = checkpoints(length, validate, before)[number]
    assert torch.load(checkpoint, weights_only=True)["ShardDataModule"] == {
        "samples_consumed": steps * BATCH,
        "epoch": steps // BATCHES_PER_EPOCH,
        "samples": steps % BATCHES_PER_EPOCH * BATCH,
        "order": "22 samples in 5 shards (c626d2ba), shuffle full, seed 0, remainder drop",
        "data": to_json(make_data(shards, validation=shards if validate else None).identity),
    }
    assert fit(shards, resume=checkpoint, **how(shards, length, validate, after)) == uninterrupted[steps * BATCH :]


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_end"])
@pytest.mark.parametrize("length", [{"max_epochs": 4}, {"max_epochs": -1, "max_steps": 20}], ids=["epochs", "steps"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_from_the_end_of_an_epoch(
    shards: str, uninterrupted, tmp_path: Path, hook: str, length: dict, accumulate: int
):
    checkpoint = tmp_path / "end.ckpt"
    save = SaveAt(checkpoint, 2 * BATCHES_PER_EPOCH, hook)
    fit(shards, callbacks=[save], validation=shards, **length)
    changes = {"batch_size": BATCH // accumulate, "accumulate_grad_batches": accumulate, **length}
    assert fit(shards, resume=checkpoint, validation=shards, **changes) == uninterrupted[2 * EPOCH :]


def test_validation_keeps_its_steps_after_a_resume_with_another_accumulation(shards: str, tmp_path: Path):
    checkpoint = tmp_path / "middle.ckpt"
    changes = {"max_steps": 12, "max_epochs": -1, "validation": shards, "check_val_every_n_epoch": None}

    class ValidatedAt(Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.steps.append(trainer.global_step)

    save = SaveAt(checkpoint, 7, "on_train_batch_end")
    fit(shards, callbacks=[save], val_check_interval=3, num_sanity_val_steps=0, **changes)
    at = ValidatedAt()
    twice = {"batch_size": 2, "accumulate_grad_batches": 2, "val_check_interval": 6}
    fit(shards, callbacks=[at], resume=checkpoint, num_sanity_val_steps=0, **changes, **twice)
    assert at.steps == [9, 12]


@pytest.mark.slow
@pytest.mark.parametrize("batches", [3, 5])
def test_resume_with_workers(shards: str, uninterrupted, tmp_path: Path, batches: int):
    checkpoint = tmp_path / "middle.ckpt"
    fit(shards, max_epochs=2, loading={"num_workers": 2}, callbacks=[SaveAt(checkpoint, batches, "on_train_batch_end")])
    assert fit(shards, max_epochs=4, loading={"num_workers": 2}, resume=checkpoint) == uninterrupted[batches * BATCH :]


def test_shortened_epochs_go_on_with_the_next_samples(shards: str, uninterrupted, tmp_path: Path):
    checkpoint = tmp_path / "middle.ckpt"
    changes = {"max_epochs": 5, "limit_train_batches": 3}
    seen = fit(shards, callbacks=[SaveAt(checkpoint, 7, "on_train_batch_end")], **changes)
    assert seen == uninterrupted[: 15 * BATCH]
    assert fit(shards, resume=checkpoint, **changes) == uninterrupted[7 * BATCH : 15 * BATCH]


def test_shortened_epochs_are_whole_steps(shards: str):
    changes = {"max_epochs": 5, "accumulate_grad_batches": 2, "batch_size": 2}
    with pytest.raises(ConfigError, match=r"limit_train_batches 3 gives epochs of 3 batches.* 2 make a step: use 2"):
        fit(shards, limit_train_batches=3, **changes)
    with pytest.raises(ConfigError, match=r"limit_train_batches 0.5 gives epochs of 5 batches"):
        fit(shards, limit_train_batches=0.5, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [2, 3, 5, 8])
@pytest.mark.parametrize("batches", [2, 5, 6])
def test_resume_with_another_global_batch_repeats_and_loses_nothing(
    shards: str, uninterrupted, tmp_path: Path, batch_size: int, batches: int
):
    checkpoint = tmp_path / "middle.ckpt"
    before = fit(shards, max_epochs=2, callbacks=[SaveAt(checkpoint, batches, "on_train_batch_end")])[: batches * BATCH]
    after = fit(shards, max_epochs=4, batch_size=batch_size, resume=checkpoint)
    epoch = batches // BATCHES_PER_EPOCH
    first, second = ([index for number, index, _ in before + after if number == epoch + more] for more in (0, 1))
    there = batches * BATCH - epoch * EPOCH
    assert len(set(first)) == len(first) == there + (NUM_SAMPLES - there) // batch_size * batch_size
    assert len(set(second)) == len(second) == NUM_SAMPLES // batch_size * batch_size


def test_resume_from_a_checkpoint_without_epochs(shards: str, uninterrupted, tmp_path: Path):
    checkpoint = tmp_path / "middle.ckpt"
    fit(shards, max_epochs=2, callbacks=[SaveAt(checkpoint, 7, "on_train_batch_end")])
    content = torch.load(checkpoint, weights_only=False)
    content["ShardDataModule"] = {"samples_consumed": 7 * BATCH}
    torch.save(content, checkpoint)
    assert fit(shards, max_epochs=4, resume=checkpoint) == uninterrupted[7 * BATCH :]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, r"was 22 .* seed 0, .* is 22 .* seed 1"),
        ({"order": {"shuffle": "block"}}, r"was 22 .* shuffle full, .* is 22 .* shuffle block of 8"),
        ({"order": {"remainder": "pad"}}, r"was 22 .* remainder drop.* is 22 .* remainder pad"),
    ],
    ids=["seed", "shuffle", "remainder"],
)
def test_another_order_is_told_as_other_data_are(shards: str, caplog, changes: dict, words: str):
    state = make_data(shards).state_dict()
    with pytest.raises(DataError, match=f"in another order .*{words}.* twice or not at all: give data.seed.* allow"):
        make_data(shards, **changes).load_state_dict(state)
    with caplog.at_level("WARNING", logger="framework"):
        make_data(shards, **changes, on_changed_data="allow").load_state_dict(state)
    assert "in another order than in the checkpoint" in caplog.text
    caplog.clear()
    validating = make_data(shards, **changes)
    validating.trainer = Mock(spec=Trainer, state=TrainerState(fn=TrainerFn.VALIDATING))
    validating.load_state_dict(state)
    assert caplog.text == ""


def test_a_set_is_known_by_what_is_in_it(shards: str, tmp_path: Path):
    found = make_data(shards).identity
    assert (found.classes, found.train[0].path, found.train[0].num_samples) == (("cat", "dog"), shards, NUM_SAMPLES)
    assert found.train[0].digest == ShardSet(shards).manifest.digest
    assert found.validation is None
    # Wherever it lies, and whatever else is in the recipe.
    copy = shutil.copytree(shards, tmp_path / "copy")
    other = make_data(str(copy), validation=shards, seed=7, batch_size=2).identity
    assert [each.digest for each in other.train] == [other.validation.digest] == [found.train[0].digest]


def changed(tmp_path: Path, change: str) -> str:
    """The shards of the tests, made anew with a change."""
    classes = ("cat", "dog")
    make_image_shards(tmp_path, classes=classes, per_class=NUM_SAMPLES // 2, size=(10, 8), samples_per_shard=5)
    images = tmp_path / "images"
    if change == "renamed":
        (images / "cat").rename(images / "zebra")
    elif change == "other bytes":
        shutil.copy(images / "cat" / "0001.png", images / "cat" / "0000.png")
    elif change == "other order":
        names = (images / "cat" / "0001.png", images / "cat" / "0000.png", images / "cat" / "spare.png")
        for here, there in zip(names, (names[2], names[0], names[1]), strict=True):
            here.rename(there)
    elif change == "fewer":
        (images / "dog" / "0003.png").unlink()
    per_shard = 7 if change == "other shards" else 5
    write_image_shards(images, tmp_path / "shards", samples_per_shard=per_shard, workers=1, overwrite=True)
    return str(tmp_path / "shards")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("renamed", "'cat', class 0, is gone; 'dog' was class 1 and is 0; 'zebra' is new as class 1; .*digest"),
        ("other bytes", r"is not .* as it was \(digest \w{12}, was \w{12}; 22 samples, were 22\)"),
        ("other order", "is not .* as it was"),
        ("other shards", "is not .* as it was"),
        ("fewer", "21 samples, were 22"),
    ],
)
def test_a_resume_on_other_data_is_refused_or_allowed(
    shards: str, tmp_path: Path, change: str, words: str, caplog: pytest.LogCaptureFixture
):
    state = make_data(shards).state_dict()
    other = changed(tmp_path, change)
    with pytest.raises(DataError, match=rf"not those that the checkpoint was trained on \(.*{words}.*on_changed_data"):
        make_data(other).load_state_dict(state)
    caplog.set_level("WARNING", logger="framework")
    make_data(other, on_changed_data="allow").load_state_dict(state)
    assert "other data than before:" in caplog.text


def test_a_resume_on_the_same_data_says_nothing(shards: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="framework")
    again = changed(tmp_path, "nothing")
    assert again != shards
    make_data(again).load_state_dict(make_data(shards).state_dict())
    assert caplog.text == ""


def test_a_checkpoint_of_before_data_were_recorded(shards: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="framework")
    state = make_data(shards).state_dict()
    del state["data"]
    make_data(shards).load_state_dict(state)
    assert caplog.text.count("whether these are the same is not checked") == 1


def test_another_set_to_validate_on_is_told(shards: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    state = make_data(shards, validation=shards).state_dict()
    caplog.set_level("INFO", logger="framework")
    make_data(shards, validation=changed(tmp_path, "other bytes")).load_state_dict(state)
    assert "validation is on" in caplog.text


def test_a_mixture_of_the_sets_in_another_order_is_refused(shards: str, tmp_path: Path):
    other = changed(tmp_path, "other bytes")
    state = make_data({shards: 1.0, other: 1.0}).state_dict()
    with pytest.raises(DataError, match="the shard sets are in another order"):
        make_data({other: 1.0, shards: 1.0}).load_state_dict(state)
    with pytest.raises(DataError, match="2 shard sets were trained on, and now 1"):
        make_data(shards).load_state_dict(state)


def test_a_validation_needs_the_classes_alone(shards: str, tmp_path: Path):
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.state.fn = TrainerFn.VALIDATING
    state = make_data(shards).state_dict()
    data = make_data(changed(tmp_path / "other", "other bytes"))
    data.trainer = trainer
    data.load_state_dict(state)
    data = make_data(changed(tmp_path / "renamed", "renamed"))
    data.trainer = trainer
    with pytest.raises(DataError, match="'dog' was class 1 and is 0"):
        data.load_state_dict(state)


def unlike_processes(folders: str) -> str:
    """What a process says whose set is not that of the first."""
    torch.distributed.init_process_group("gloo")
    data = make_data(folders.split("|")[torch.distributed.get_rank()])
    try:
        data.setup("fit")
    except DataError as error:
        return str(error)
    finally:
        torch.distributed.destroy_process_group()
    return "nothing"


@pytest.mark.slow
def test_processes_with_unlike_copies_are_refused(shards: str, tmp_path: Path):
    other = changed(tmp_path, "other bytes")
    for said in run_forked(unlike_processes, 2, folders=f"{shards}|{other}").results.values():
        assert re.search(r"process 1 has other data than process 0 \(.*digest.*copy one set to all nodes", said)
    assert run_forked(unlike_processes, 2, folders=f"{shards}|{shards}").results == {0: "nothing", 1: "nothing"}


def test_padding_gives_every_sample_in_every_epoch(shards: str):
    seen = fit(shards, max_epochs=2, order={"remainder": "pad"})
    for epoch in range(2):
        indices = [index for number, index, _ in seen if number == epoch]
        assert len(indices) == 24
        assert sorted(indices[:22]) == list(range(22))
        assert indices[22:] == indices[:2]


@pytest.mark.slow
def test_global_batch_sets_the_accumulation(shards: str, uninterrupted):
    assert fit(shards, max_epochs=2, batch_size=1, global_batch=4) == uninterrupted[: 2 * EPOCH]
    assert fit(shards, max_steps=2, batch_size=1, global_batch=4) == uninterrupted[: 2 * BATCH]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 4, "global_batch": 10}, r"10 is not a multiple of batch_size 4 x 1 process\(es\): use 8 or 12"),
        ({"batch_size": 4, "global_batch": 3}, "use 4, or another data.batch_size"),
        (
            {"batch_size": 2, "global_batch": 8, "accumulate_grad_batches": 2},
            r"x accumulate_grad_batches 2: leave trainer.accumulate_grad_batches out \(4 follows\), or use 4",
        ),
    ],
)
def test_global_batch_that_does_not_divide(shards: str, changes: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        fit(shards, max_epochs=1, **changes)


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
        ({"images": {"size": 0}}, "images.size is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 23}, "22 samples are fewer than a global batch of 23"),
        ({"order": {"block_shards": 0}}, "block_shards is 0"),
        ({"loading": {"num_workers": -1}}, "num_workers is -1"),
        ({"loading": {"max_bad_samples": -1}}, "max_bad_samples is -1"),
        ({"images": {"size": None}}, "data.images.size is not set"),
        ({"train": {}}, "data.train names no shard set"),
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
    loader = make_data(str(tmp_path / "shards"), loading={"num_workers": num_workers}).train_dataloader()
    with pytest.raises(DataError, match=r"sample \d \(byte \d+ of .*shard-000000.tar\) cannot be decoded"):
        list(loader)
    reference = weakref.ref(loader)
    del loader
    # Its workers end now, and not with a garbage collection.
    assert num_workers == 0 or reference() is None


@pytest.mark.slow
def test_mixed_sets(shards: str, tmp_path: Path):
    make_image_shards(tmp_path, per_class=3, size=8)
    other = str(tmp_path / "shards")
    seen = fit(shards, train={shards: 3.0, other: 1.0}, max_epochs=2)
    assert len(seen) == 2 * 28
    from_other = [index >= NUM_SAMPLES for _, index, _ in seen]
    assert [sum(from_other[at : at + 4]) for at in range(0, 56, 4)] == [1] * 14
    assert [epoch for epoch, _, _ in seen] == [0] * 28 + [1] * 28
    checkpoint = tmp_path / "middle.ckpt"
    save = SaveAt(checkpoint, 9, "on_train_batch_end")
    fit(shards, train={shards: 3.0, other: 1.0}, max_epochs=2, callbacks=[save])
    assert fit(shards, train={shards: 3.0, other: 1.0}, max_epochs=2, resume=checkpoint) == seen[36:]
    # Another global batch: the mixture goes on with the next sample.
    assert fit(shards, train={shards: 3.0, other: 1.0}, max_epochs=2, resume=checkpoint, batch_size=2)[:18] == [
        (0 if at + 36 < 34 else 1, index, pixels) for at, (_, index, pixels) in enumerate(seen[36:54])
    ]


def test_mixed_sets_of_other_classes(shards: str, tmp_path: Path):
    make_image_shards(tmp_path, classes=("cat", "cow"), per_class=1)
    with pytest.raises(ConfigError, match="differ in their classes, such as 'cow'"):
        make_data({shards: 1.0, str(tmp_path / "shards"): 1.0}).setup("fit")


def test_test_set(shards: str):
    data = make_data(shards, test=shards, validation_samples=3)
    data.setup("test")
    batches = [batch.indices for batch in data.test_dataloader()]
    assert [len(batch) for batch in batches] == [4] * 5 + [2]
    assert torch.cat(batches).tolist() == list(range(NUM_SAMPLES))
    with pytest.raises(ConfigError, match="there is no test set"):
        make_data(shards).setup("test")


def test_episodes(tmp_path: Path):
    lines = [json.dumps({"task": number}) for number in range(9)]
    (tmp_path / "episodes.jsonl").write_text("\n".join(lines))
    write_jsonl_shards(tmp_path / "episodes.jsonl", tmp_path / "shards", options=WriteOptions(samples_per_shard=4))
    data = ShardDataModule(
        train=str(tmp_path / "shards"), kind="episodes", batch_size=3, loading=LoadingConfig(num_workers=1)
    )
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert [len(batch) for batch in batches] == [3, 3, 3]
    tasks = [episode["task"] for batch in batches for episode in batch.episodes]
    assert tasks == torch.cat([batch.indices for batch in batches]).tolist()
    assert sorted(tasks) == list(range(9))


def test_kinds_that_differ(shards: str):
    with pytest.raises(ConfigError, match=r"holds images, and data\.kind is episodes: set data\.kind to images"):
        ShardDataModule(train=shards, kind="episodes", batch_size=1).setup("fit")


@pytest.mark.parametrize(("kind", "pinned"), [("cpu", False), ("cuda", True)])
def test_batches_are_page_locked_for_a_run_on_a_gpu_alone(shards: str, kind: str, pinned: bool):
    data = make_data(shards, validation=shards)
    data.trainer = Mock(spec=Trainer, strategy=Mock(spec=Strategy, root_device=torch.device(kind)))
    assert data.val_dataloader().pin_memory is pinned
    data.trainer = None
    assert not data.val_dataloader().pin_memory
