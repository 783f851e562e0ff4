"""Single-file checkpoints that are either complete or absent, and which one to resume from.

A checkpoint is a file `step=NNNNNNNN.ckpt` in the run's `checkpoints` folder, made under a temporary name and renamed;
none is ever overwritten. Loading is `weights_only`.
"""

import re
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from framework.errors import CheckpointError, ConfigError
from framework.files import written_whole

FOLDER = "checkpoints"
_NAME = re.compile(r"step=(\d+)\.ckpt")

Resume = Literal["auto", "must", "never"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes under a temporary name in the same folder, flushes to the disk, then renames.

    Lightning's own writer moves from the system's temporary folder, which is a copy where that is another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as file:
            torch.save(checkpoint, file)


class Checkpoints(Checkpoint):
    """Saves a checkpoint every n optimizer steps and at the end, and keeps the newest ones.

    Args:
        every_n_steps: optimizer steps between checkpoints.
        keep_last: how many of the newest to keep; older ones are removed after a newer one is complete.
    """

    def __init__(self, *, every_n_steps: int = 1000, keep_last: int = 2) -> None:
        if every_n_steps < 1 or keep_last < 1:
            raise ConfigError(
                f"checkpoint.every_n_steps {every_n_steps}, checkpoint.keep_last {keep_last}", mend="use 1 or more"
            )
        self.every_n_steps, self.keep_last = every_n_steps, keep_last
        self._saved_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.global_step == self._saved_step:
            return
        folder = Path(trainer.default_root_dir) / FOLDER
        trainer.save_checkpoint(folder / f"step={trainer.global_step:08d}.ckpt", weights_only=False)
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            for old in list_checkpoints(folder)[: -self.keep_last]:
                old.unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first; temporary and other files are not among them."""
    found = ((match, path) for path in folder.glob("*.ckpt") if (match := _NAME.fullmatch(path.name)))
    return [path for _, path in sorted((int(match[1]), path) for match, path in found)]


def step_of(checkpoint: Path) -> int:
    """Optimizer step of a checkpoint made by `Checkpoints`."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None, checkpoint
    return int(match[1])


def damage(path: Path) -> str | None:
    """Why a checkpoint file cannot be trusted, or None: checks every record's checksum, and that torch reads it."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad:
            return f"record {bad} does not match its checksum"
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # Both raise whatever a damaged index makes them stumble over.
        return f"not a complete checkpoint file ({str(error).partition(chr(10))[0] or type(error).__name__})"
    return None


def choose_checkpoint(run_dir: Path, resume: Resume) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint to resume from, and what was skipped and why.

    Raises:
        CheckpointError: `must` and there is none; all are damaged; `never` in a run folder that already has some.
    """
    folder = run_dir / FOLDER
    candidates = list_checkpoints(folder)
    if resume == "never":
        if candidates:
            raise CheckpointError(
                f"{run_dir} already holds checkpoints up to step {step_of(candidates[-1])}",
                mend="go on with --resume auto, or start anew with another --run.dir",
            )
        return None, []
    skipped = []
    for path in reversed(candidates):
        reason = damage(path)
        if reason is None:
            return path, skipped
        skipped.append(f"{path}: {reason}")
    if skipped:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged ({'; '.join(skipped)})",
            mend="restore one from a copy, or start anew with another --run.dir",
        )
    if resume == "must":
        raise CheckpointError(f"no checkpoint in {folder}", mend="check --run.dir, or use --resume auto")
    return None, []


def find_checkpoint(path: str | Path) -> Path:
    """A checkpoint file, given itself or a run's folder (then its newest undamaged one).

    Raises:
        CheckpointError: there is none, or the file is damaged.
    """
    path = Path(path)
    if path.is_dir():
        chosen, _ = choose_checkpoint(path, "must")
        assert chosen is not None
        return chosen
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", mend="give a checkpoint file or a run's folder")
    reason = damage(path)
    if reason:
        raise CheckpointError(f"{path}: {reason}", mend="use another checkpoint of the run")
    return path


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a checkpoint file, given itself or a run's folder, on the CPU and without running any code in it.

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint.
    """
    file = find_checkpoint(path)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise CheckpointError(f"{file} cannot be read ({error})", mend="give a checkpoint that `fit` made") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise CheckpointError(f"{file} holds no state_dict", mend="give a checkpoint that `fit` made")
    return content
