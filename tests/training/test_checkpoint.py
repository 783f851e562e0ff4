"""Checkpoints are complete or absent, the right one is chosen, and the right ones stay."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from framework.core.errors import CheckpointError, ConfigError
from framework.testing.faults import flip_bytes, truncate
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.checkpoint.choose import choose_checkpoint, damage, newest_undamaged, refuse_existing
from framework.training.checkpoint.layout import (
    FOLDER,
    Manifest,
    Retention,
    clean,
    list_checkpoints,
    name_of,
    note_validation,
    point_to_newest,
    step_of,
)
from framework.training.checkpoint.provenance import recipe_changes
from framework.training.checkpoint.read import find_checkpoint, read_state, read_tensors
from framework.training.checkpoint.tensors import model_tensors, optimizer_state, share_of, split_optimizers


def fit(run_dir: Path, checkpoints: Checkpoints, *callbacks: Callback, batches: int, **options: Any) -> Trainer:
    data = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(batches)]
    validation = [tiny_batch(tiny_config(), 2, seed=99)] if "val_check_interval" in options else []
    trainer = quiet_trainer(
        run_dir, callbacks=[checkpoints, *callbacks], enable_checkpointing=True, max_epochs=1, **options
    )
    trainer.fit(tiny_module(), datamodule=Batches(data, validation))
    return trainer


def steps_in(run_dir: Path) -> list[int]:
    return [step_of(path) for path in list_checkpoints(run_dir / FOLDER)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 2, 4 and 5."""
    run_dir = tmp_path_factory.mktemp("trained")
    fit(run_dir, Checkpoints(every_n_steps=2, keep_last=3), batches=5)
    return run_dir


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def newest(run_dir: Path) -> Path:
    return list_checkpoints(run_dir / FOLDER)[-1]


# What a checkpoint is.


def test_what_a_checkpoint_holds(trained: Path):
    checkpoint = newest(trained)
    manifest = Manifest.read(checkpoint)
    assert (manifest.step, manifest.world_size, manifest.kind) == (5, 1, "dcp")
    assert manifest.packages["torch"] == torch.__version__
    files = {path.name for path in checkpoint.iterdir()}
    assert files == {*manifest.files, "manifest.json"} == {"__0_0.distcp", ".metadata", "state.pt", "manifest.json"}
    assert all((checkpoint / name).stat().st_size == record.size for name, record in manifest.files.items())
    assert (trained / FOLDER / "newest").read_text() == "step=00000005"
    state = read_state(checkpoint)
    assert state["global_step"] == 5
    assert state["architecture"]["width"] == 16
    assert state["objective"]["rollout_passes"] == 1
    assert len(state["lr_schedulers"]) == 1
    [optimizer] = state["optimizer_states"]
    assert optimizer["state"]["model.head.network.project_in.weight"]["step"] == 5
    model, average = read_tensors(checkpoint, "model."), read_tensors(checkpoint, "ema.")
    assert model.keys() == average.keys() == dict(tiny_module_model().named_parameters()).keys()
    moments = read_tensors(checkpoint, "optimizers.0.model.head.network.project_in.")
    assert moments.keys() == {"weight.exp_avg", "weight.exp_avg_sq", "bias.exp_avg", "bias.exp_avg_sq"}
    assert find_checkpoint(trained) == find_checkpoint(str(checkpoint)) == checkpoint


def tiny_module_model() -> torch.nn.Module:
    module = tiny_module()
    module.configure_model()
    return module.model


def test_only_what_is_asked_for_is_loaded(trained: Path, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    load = torch.load

    def counting(*args: Any, **options: Any) -> Any:
        found = load(*args, **options)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(torch, "load", counting)
    average = read_tensors(newest(trained), "ema.")
    assert sum(sizes) == sum(tensor.numel() for tensor in average.values())


def test_names_are_free_of_wrappers():
    inner = checkpoint_wrapper(torch.nn.Linear(2, 2))
    module = torch.nn.Module()
    module.model = torch.nn.Sequential(torch.compile(inner), torch.nn.BatchNorm1d(2))
    assert {name for name, _ in module.named_parameters()} & {"model.0._orig_mod._checkpoint_wrapped_module.weight"}
    optimizer = torch.optim.SGD(module.parameters(), momentum=0.9)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    names = {"model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"}
    buffers = {"model.1.running_mean", "model.1.running_var", "model.1.num_batches_tracked"}
    assert model_tensors(module).keys() == names | buffers
    assert optimizer_state(module, optimizer)["state"].keys() == names
    tensors, _ = split_optimizers([optimizer_state(module, optimizer)])
    assert tensors.keys() == {f"optimizers.0.{name}.momentum_buffer" for name in names}


def test_each_rank_writes_a_part_of_what_all_have():
    tensors = {f"{number}": torch.zeros(size) for number, size in enumerate((100, 90, 80, 10, 5, 1))}
    shares = [share_of(tensors, rank, 3, is_part=lambda tensor: False) for rank in range(3)]
    assert sorted(name for share in shares for name in share) == sorted(tensors)
    assert max(sum(tensor.numel() for tensor in share.values()) for share in shares) == 100


# Damage.

FAULTS = {
    "sixteen flipped bytes": (lambda c: flip_bytes(c / "__0_0.distcp"), "__0_0.distcp does not match its checksum"),
    "flipped state": (lambda c: flip_bytes(c / "state.pt"), "state.pt does not match its checksum"),
    "no metadata": (lambda c: (c / ".metadata").unlink(), ".metadata is missing"),
    "truncated shard": (lambda c: truncate(c / "__0_0.distcp"), r"__0_0.distcp has \d+ bytes instead of \d+"),
    "no shard": (lambda c: (c / "__0_0.distcp").unlink(), "__0_0.distcp is missing"),
    "no manifest": (lambda c: (c / "manifest.json").unlink(), "has no manifest.json"),
    "torn manifest": (lambda c: truncate(c / "manifest.json"), "manifest.json cannot be read"),
    "odd manifest": (lambda c: (c / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_one_is_passed_over_with_the_reason(run_dir: Path, fault: str):
    harm, words = FAULTS[fault]
    broken = newest(run_dir)
    harm(broken)
    told: list[str] = []
    choice = newest_undamaged(run_dir, told.append)
    assert choice.path == broken.with_name(name_of(4))
    [(skipped, reason)] = choice.skipped
    assert skipped == broken
    assert told == [f"skipped {broken}: {reason}"]
    with pytest.raises(CheckpointError, match=words) as error:
        find_checkpoint(broken)
    assert reason in error.value.problem


def test_several_damaged_ones(run_dir: Path):
    for path in list_checkpoints(run_dir / FOLDER)[1:]:
        (path / ".metadata").unlink()
        truncate(path / "state.pt")
    choice = newest_undamaged(run_dir)
    assert choice.path is not None
    assert step_of(choice.path) == 2
    assert [step_of(path) for path, _ in choice.skipped] == [5, 4]
    assert all("and 1 more" in reason for _, reason in choice.skipped)
    flip_bytes(choice.path / "__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged \(step=00000005: .*step=00000002"):
        choose_checkpoint(run_dir, may_be_none=True)


def test_a_flipped_bit_anywhere_is_found(run_dir: Path):
    checkpoint = newest(run_dir)
    manifest = Manifest.read(checkpoint)
    for name in manifest.files:
        content = (checkpoint / name).read_bytes()
        for place in range(0, len(content), max(1, len(content) // 20)):
            (checkpoint / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert damage(checkpoint, manifest) == f"{name} does not match its checksum"
        (checkpoint / name).write_bytes(content)
    assert damage(checkpoint, manifest) is None


def test_a_newer_version_is_refused_and_not_passed_over(run_dir: Path):
    path = newest(run_dir) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(CheckpointError, match="has format version 2, and this is for version 1: update the framework"):
        choose_checkpoint(run_dir)


def test_no_code_in_a_checkpoint_is_run(run_dir: Path):
    checkpoint, touched = newest(run_dir), run_dir / "touched"

    class Attack:
        def __reduce__(self):
            return Path.touch, (touched,)

    (checkpoint / ".metadata").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(CheckpointError, match=r"\.metadata holds .*: give a checkpoint"):
        read_tensors(checkpoint, "model.")
    torch.save({"loops": Attack()}, checkpoint / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        read_state(checkpoint)
    assert not touched.exists()


# Choosing.


def test_nothing_there(tmp_path: Path):
    assert choose_checkpoint(tmp_path, may_be_none=True).path is None
    refuse_existing(tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*checkpoints: check --run\.dir"):
        choose_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere does not exist: give a checkpoint or a run's folder"):
        find_checkpoint(tmp_path / "nowhere")


def test_a_run_that_has_some_is_not_started_anew(trained: Path):
    with pytest.raises(CheckpointError, match="already holds checkpoints up to step 5: go on with --resume auto"):
        refuse_existing(trained)


def test_leftovers_are_no_checkpoints_and_are_cleaned_away(run_dir: Path):
    folder = run_dir / FOLDER
    for suffix in (".partial", ".removed", ".damaged"):
        shutil.copytree(newest(run_dir), folder / f"step=00000009{suffix}")
    (folder / "newest.partial").write_text("step=0")
    (folder / "newest").write_text("step=00000009")
    (folder / "step=00000007").write_text("a file")
    assert steps_in(run_dir) == [2, 4, 5]
    assert choose_checkpoint(run_dir).path == newest(run_dir)
    clean(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "newest",
        *(name_of(step) for step in (2, 4, 5, 7)),
        "step=00000009.damaged",
    ]
    assert (folder / "newest").read_text() == name_of(5)


# Loading.


def test_a_checkpoint_of_another_model(trained: Path, tmp_path: Path):
    class Other(LightningModule):
        def __init__(self, more: bool) -> None:
            super().__init__()
            self.model = torch.nn.Linear(2, 2)
            self.extra = torch.nn.Linear(2, 2) if more else None

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.model(torch.ones(2)).sum()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

    data = [tiny_batch(tiny_config(), 2)]
    with pytest.raises(CheckpointError, match=r"is of another model \(ema\..* is only in the checkpoint and \d+ more"):
        quiet_trainer(tmp_path, max_steps=9).fit(Other(False), datamodule=Batches(data), ckpt_path=trained)
    run = [Checkpoints(every_n_steps=1)]
    quiet_trainer(tmp_path, max_steps=1, callbacks=run, enable_checkpointing=True).fit(
        Other(False), datamodule=Batches(data)
    )
    with pytest.raises(CheckpointError, match=r"extra\.bias is only in the model and 1 more"):
        quiet_trainer(tmp_path, max_steps=9).fit(Other(True), datamodule=Batches(data), ckpt_path=tmp_path)


def test_state_that_could_not_be_read_again_is_not_saved(tmp_path: Path):
    class Odd(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"folder": Path("x")}

    with pytest.raises(CheckpointError, match="holds more than plain types in callbacks: give only plain types"):
        fit(tmp_path, Checkpoints(every_n_steps=1), Odd(), batches=2)
    assert steps_in(tmp_path) == []


# During training.


class Listing(Callback):
    """The steps of the checkpoints that are there before each batch, the last save waited for."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.seen: list[list[int]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self.checkpoints.wait()
        self.seen.append(steps_in(Path(trainer.default_root_dir)))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_every_n_steps_and_at_the_end(tmp_path: Path, asynchronous: bool):
    checkpoints = Checkpoints(every_n_steps=2, keep_last=2, asynchronous=asynchronous)
    listing = Listing(checkpoints)
    fit(tmp_path, checkpoints, listing, batches=7)
    assert listing.seen == [[], [], [2], [2], [2, 4], [2, 4], [4, 6]]
    assert steps_in(tmp_path) == [6, 7]
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {"newest", name_of(6), name_of(7)}


def test_accumulated_batches_are_one_step(tmp_path: Path):
    checkpoints = Checkpoints(every_n_steps=2, keep_last=3)
    listing = Listing(checkpoints)
    fit(tmp_path, checkpoints, listing, batches=8, accumulate_grad_batches=2)
    assert listing.seen == [[], [], [], [], [2], [2], [2], [2]]
    assert steps_in(tmp_path) == [2, 4]


def test_the_copy_is_of_the_step_that_was_saved(tmp_path: Path):
    """Training that goes on does not reach into what is being written."""

    class Scribble(Callback):
        saved: torch.Tensor

        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            weight = pl_module.model.head.network.project_in.weight
            if trainer.global_step == 2:
                self.saved = weight.detach().clone()
                checkpoints.save(trainer)
                with torch.no_grad():
                    weight.fill_(7)

    checkpoints, scribble = Checkpoints(every_n_steps=100, keep_last=5), Scribble()
    fit(tmp_path, checkpoints, scribble, batches=3)
    found = read_tensors(tmp_path / FOLDER / name_of(2), "model.head.network.project_in.")["weight"]
    assert torch.equal(found, scribble.saved)
    assert not torch.equal(found, torch.full_like(found, 7))


# What stays.


def made(folder: Path, *steps: int) -> list[Path]:
    for step in steps:
        (folder / name_of(step)).mkdir(parents=True)
    return list_checkpoints(folder)


def test_what_retention_gives_up(tmp_path: Path):
    paths = made(tmp_path, *range(10, 100, 10))

    def left(retention: Retention) -> list[int]:
        gone = retention.superfluous(paths)
        return [step_of(path) for path in paths if path not in gone]

    assert left(Retention(last=2)) == [80, 90]
    assert left(Retention(last=1, every_n_steps=30)) == [30, 60, 90]
    for step, value in ((10, 3.0), (20, 1.0), (30, 2.0), (35, 0.1), (40, float("nan")), (50, 1.0)):
        note_validation(tmp_path, step, {"validation/total": value})
    with (tmp_path / "validation.jsonl").open("a") as file:
        file.write('\n{"step": 60, "met')
    assert left(Retention(last=1, best=2, metric="validation/total")) == [20, 50, 90]
    assert left(Retention(last=1, best=1, metric="validation/total", mode="max")) == [10, 90]
    note_validation(tmp_path, 20, {"validation/total": 9.0})
    assert left(Retention(last=1, best=1, metric="validation/total")) == [50, 90]
    assert left(Retention(last=100)) == list(range(10, 100, 10))


def test_the_best_by_a_metric_stays(tmp_path: Path):
    checkpoints = Checkpoints(every_n_steps=1, keep_last=1, keep_best=1, best_metric="validation/total")
    fit(tmp_path, checkpoints, batches=5, val_check_interval=1)
    lines = (tmp_path / FOLDER / "validation.jsonl").read_text().splitlines()
    measured = [json.loads(line) for line in lines if line]
    assert [entry["step"] for entry in measured] == [1, 2, 3, 4, 5]
    # The validation of the newest one comes after it is saved.
    best = min(measured[:4], key=lambda entry: entry["metrics"]["validation/total"])["step"]
    assert steps_in(tmp_path) == sorted({best, 5})
    unknown = Checkpoints(keep_best=1, best_metric="validation/speed")
    with pytest.raises(ConfigError, match=r"best_metric validation/speed is not measured: use one of: validation/"):
        fit(tmp_path / "other", unknown, batches=2, val_check_interval=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"every_n_steps": 0}, "every_n_steps 0"),
        ({"keep_last": 0}, "keep_last 0"),
        ({"keep_every_n_steps": 0}, "keep_every_n_steps 0"),
        ({"keep_best": 1}, "keep_best 1 with best_metric None: set both, or neither"),
        ({"best_metric": "validation/total"}, "keep_best 0 with best_metric validation/total"),
    ],
)
def test_checkpoints_that_cannot_be(changes: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        Checkpoints(**changes)


def test_the_pointer(tmp_path: Path):
    point_to_newest(tmp_path)
    assert not (tmp_path / "newest").exists()
    [first, _] = made(tmp_path, 1, 2)
    point_to_newest(tmp_path)
    assert (tmp_path / "newest").read_text() == name_of(2)
    (tmp_path / name_of(2)).rmdir()
    point_to_newest(tmp_path)
    assert (tmp_path / "newest").read_text() == first.name


def test_manifests_come_back(tmp_path: Path, trained: Path):
    manifest = replace(Manifest.read(newest(trained)), recipe="a: 1\n", wandb_id="abc", samples_consumed=7)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_changes_between_recipes():
    before = "run: {dir: a}\nmodel: {width: 3, depth: 2}\ndata: {train: {x: 1}}\nresume: auto\n"
    now = "run: {dir: b}\nmodel: {width: 4, heads: 1}\ndata: {train: {x: 1}}\nresume: must\n"
    assert recipe_changes(before, now) == [
        "model.depth: 2 -> not set",
        "model.heads: not set -> 1",
        "model.width: 3 -> 4",
    ]
    assert recipe_changes(before, before) == recipe_changes(None, now) == []


def test_another_strategy_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"strategy SingleDeviceStrategy saves no such checkpoints: take one of"):
        fit(tmp_path, Checkpoints(), batches=1, strategy="auto")
