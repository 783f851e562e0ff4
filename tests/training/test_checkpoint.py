"""Checkpoints are complete or absent, and the right one is chosen."""

import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.errors import CheckpointError, ConfigError
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.training.checkpoint import (
    AtomicCheckpointIO,
    Checkpoints,
    choose_checkpoint,
    damage,
    find_checkpoint,
    list_checkpoints,
    read_checkpoint,
    step_of,
)

CONTENT = {"state_dict": {"weights": torch.arange(100.0), "more": torch.ones(3)}}


def save(folder: Path, step: int) -> Path:
    path = folder / f"step={step:08d}.ckpt"
    AtomicCheckpointIO().save_checkpoint({**CONTENT, "step": step}, path)
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def flip_a_weight(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        [largest] = [record for record in archive.infolist() if record.file_size == 400]
    place = path.read_bytes().index(CONTENT["state_dict"]["weights"].numpy().tobytes())
    assert place > largest.header_offset
    flip(path, place + 41)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with the checkpoints of steps 5, 10 and 100."""
    for step in (100, 5, 10):
        save(tmp_path / "checkpoints", step)
    return tmp_path


# Writing.


def test_a_checkpoint_comes_back(tmp_path: Path):
    path = save(tmp_path / "new" / "folder", 3)
    assert damage(path) is None
    content = read_checkpoint(path)
    assert content["step"] == 3
    assert torch.equal(content["state_dict"]["weights"], torch.arange(100.0))
    assert [file.name for file in path.parent.iterdir()] == ["step=00000003.ckpt"]


KILLED_WHILE_WRITING = """
import resource, signal, sys
from pathlib import Path
import torch
from framework.training.checkpoint import AtomicCheckpointIO

folder = Path(sys.argv[1])
AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "step": 1}, folder / "step=00000001.ckpt")
# The kernel ends the process in the middle of a write, where the file grows past a megabyte.
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
AtomicCheckpointIO().save_checkpoint({"state_dict": {"a": torch.ones(2**20)}, "step": 2}, folder / "step=00000002.ckpt")
"""


def test_a_process_killed_while_writing_leaves_no_checkpoint_and_the_older_one(tmp_path: Path):
    folder = tmp_path / "checkpoints"
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(folder)], check=False, timeout=120)
    assert killed.returncode == -signal.SIGXFSZ
    assert (folder / "step=00000002.ckpt.partial").stat().st_size == 2**20
    assert sorted(folder.glob("*.ckpt")) == [folder / "step=00000001.ckpt"]
    assert choose_checkpoint(tmp_path, "must") == (folder / "step=00000001.ckpt", [])
    save(folder, 2)
    assert sorted(file.name for file in folder.iterdir()) == ["step=00000001.ckpt", "step=00000002.ckpt"]


def test_a_failed_write_keeps_the_older_file(tmp_path: Path):
    path = save(tmp_path, 1)
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "bad": lambda: None}, path)
    assert path.read_bytes() == before


# Damage.


def test_truncated(tmp_path: Path):
    path = save(tmp_path, 1)
    whole = path.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "not a complete checkpoint file" in (damage(path) or "")
        with pytest.raises(CheckpointError, match="not a complete checkpoint file"):
            read_checkpoint(path)


def test_a_flipped_bit_of_a_weight(tmp_path: Path):
    path = save(tmp_path, 1)
    flip_a_weight(path)
    assert damage(path) == "record archive/data/0 does not match its checksum"
    with pytest.raises(CheckpointError, match="does not match its checksum: use another checkpoint of the run"):
        read_checkpoint(path)


def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path: Path):
    path = save(tmp_path, 1)
    whole = path.read_bytes()
    found = 0
    for place in range(0, len(whole), 9):
        path.write_bytes(whole)
        flip(path, place)
        if damage(path) is None:
            content = read_checkpoint(path)["state_dict"]
            assert all(torch.equal(content[name], CONTENT["state_dict"][name]) for name in content), place
        else:
            found += 1
    assert found > len(whole) / 9 / 4


def test_not_a_checkpoint(tmp_path: Path):
    path = tmp_path / "step=00000001.ckpt"
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds no state_dict: give a checkpoint that `fit` made"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(CheckpointError, match=r"give a checkpoint|use another checkpoint"):
        read_checkpoint(path)
    with pytest.raises(
        CheckpointError, match=r"nothing\.ckpt does not exist: give a checkpoint file or a run's folder"
    ):
        read_checkpoint(tmp_path / "nothing.ckpt")


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path):
    path = tmp_path / "step=00000001.ckpt"

    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    torch.save({"state_dict": Attack()}, path)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not (tmp_path / "touched").exists()


# Choosing.


def test_checkpoints_in_order_and_nothing_else(run_dir: Path):
    folder = run_dir / "checkpoints"
    for name in ("step=00000200.ckpt.partial", "last.ckpt", "step=7.txt"):
        (folder / name).write_bytes(b"")
    assert [step_of(path) for path in list_checkpoints(folder)] == [5, 10, 100]
    assert list_checkpoints(run_dir / "nowhere") == []


def test_auto_and_must_take_the_newest(run_dir: Path):
    newest = run_dir / "checkpoints" / "step=00000100.ckpt"
    assert choose_checkpoint(run_dir, "auto") == choose_checkpoint(run_dir, "must") == (newest, [])
    assert find_checkpoint(run_dir) == find_checkpoint(newest) == newest


def test_damaged_ones_are_skipped_with_the_reason(run_dir: Path):
    folder = run_dir / "checkpoints"
    truncate(folder / "step=00000100.ckpt")
    flip_a_weight(folder / "step=00000010.ckpt")
    chosen, skipped = choose_checkpoint(run_dir, "auto")
    assert chosen == folder / "step=00000005.ckpt"
    assert len(skipped) == 2
    assert skipped[0].startswith(f"{folder / 'step=00000100.ckpt'}: not a complete checkpoint file")
    assert skipped[1] == (f"{folder / 'step=00000010.ckpt'}: record archive/data/0 does not match its checksum")


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_all_damaged(run_dir: Path, resume: str):
    for path in list_checkpoints(run_dir / "checkpoints"):
        truncate(path)
    with pytest.raises(
        CheckpointError, match=r"every checkpoint in .*checkpoints is damaged \(.*step=00000100.*; .*\)"
    ):
        choose_checkpoint(run_dir, resume)


def test_none_there(tmp_path: Path):
    assert choose_checkpoint(tmp_path, "auto") == (None, [])
    assert choose_checkpoint(tmp_path, "never") == (None, [])
    with pytest.raises(
        CheckpointError, match=r"no checkpoint in .*checkpoints: check --run\.dir, or use --resume auto"
    ):
        choose_checkpoint(tmp_path, "must")
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        find_checkpoint(tmp_path)


def test_never_refuses_a_run_that_has_some(run_dir: Path):
    with pytest.raises(CheckpointError, match="already holds checkpoints up to step 100: go on with --resume auto"):
        choose_checkpoint(run_dir, "never")


# During training.


class Listing(Callback):
    """The steps of the checkpoints that are there before each batch."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self.seen.append(steps_in(Path(trainer.default_root_dir)))


def steps_in(run_dir: Path) -> list[int]:
    return [step_of(path) for path in list_checkpoints(run_dir / "checkpoints")]


def fit(run_dir: Path, checkpoints: Checkpoints, *callbacks: Callback, batches: int, **options: object) -> None:
    data = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(batches)]
    trainer = quiet_trainer(
        run_dir, callbacks=[checkpoints, *callbacks], enable_checkpointing=True, max_epochs=1, **options
    )
    trainer.fit(tiny_module(), datamodule=Batches(data))


def test_every_n_steps_and_at_the_end(tmp_path: Path):
    listing = Listing()
    fit(tmp_path, Checkpoints(every_n_steps=2, keep_last=2), listing, batches=7)
    assert listing.seen == [[], [], [2], [2], [2, 4], [2, 4], [4, 6]]
    assert steps_in(tmp_path) == [6, 7]
    assert read_checkpoint(tmp_path)["global_step"] == 7


def test_accumulated_batches_are_one_step(tmp_path: Path):
    listing = Listing()
    fit(tmp_path, Checkpoints(every_n_steps=2, keep_last=3), listing, batches=8, accumulate_grad_batches=2)
    assert listing.seen == [[], [], [], [], [2], [2], [2], [2]]
    assert steps_in(tmp_path) == [2, 4]


def test_what_a_checkpoint_holds(tmp_path: Path):
    fit(tmp_path, Checkpoints(every_n_steps=10), batches=2)
    content = read_checkpoint(tmp_path)
    names = {name.partition(".")[0] for name in content["state_dict"]}
    assert names == {"model", "ema"}
    assert len(content["optimizer_states"]) == len(content["lr_schedulers"]) == 1
    assert content["architecture"]["width"] == 16
    assert content["objective"]["rollout_passes"] == 1


@pytest.mark.parametrize("changes", [{"every_n_steps": 0}, {"keep_last": 0}])
def test_checkpoints_that_cannot_be(changes: dict[str, int]):
    with pytest.raises(ConfigError, match=r"checkpoint\.every_n_steps \d+, checkpoint\.keep_last \d+: use 1 or more"):
        Checkpoints(**changes)
