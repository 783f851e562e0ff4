"""When checkpoints are made, which of them stay, and that only one job writes them."""

import logging
import time
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT

from framework.core.collectives import broadcast_object, rank_and_size
from framework.core.compat.lightning_compat import run_before_finished_fit, validate_now, validation_is_due
from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import RunLock
from framework.tracking import metric_names as metrics
from framework.training.callbacks.order import AfterOthers, put_last
from framework.training.checkpoint.layout import (
    FOLDER,
    Retention,
    clean,
    list_checkpoints,
    name_of,
    note_validation,
    point_to_newest,
    put_aside,
    step_of,
    validated_steps,
)
from framework.training.checkpoint.strategy import DirectoryCheckpoints, checkpoints_of
from framework.training.checkpoint.writing import SaveOptions, together

log = logging.getLogger(__name__)
OnUnfinishedSave = Literal["wait", "skip"]


class Checkpoints(Checkpoint):
    """Saves a checkpoint every n optimizer steps and at the end, and keeps some of the older ones.

    A checkpoint is made before the validation of its step: a run that was cut off in between makes up for that when it
    goes on.
    The run's folder belongs to one job at a time: from `setup` to the end of the process that is rank 0, or of `fit`.

    Args:
        every_n_steps: optimizer steps between checkpoints.
        keep_last: how many of the newest stay; older ones go after a newer one is complete.
        keep_every_n_steps: checkpoints of multiples of it stay for good.
        keep_best: how many of the best by `best_metric` stay besides.
        best_metric: a validation metric, such as `validation/total`; it counts for the checkpoint of the very step that
            was validated, so let `trainer.val_check_interval` be a divisor or multiple of `every_n_steps`.
        best_mode: whether the smallest or the largest is best.
        asynchronous: copy the state and go on training while it is written.
        on_unfinished_save: what becomes of a checkpoint that is due while the last one is still being written. wait:
            training waits for that one. skip: it is left out, which the log says, and the next one is made when it is
            due. Never left out are the last one, one that a signal asks for, one that is kept for good, and one whose
            step is validated where the best are kept.
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 1000,
        keep_last: int = 2,
        keep_every_n_steps: int | None = None,
        keep_best: int = 0,
        best_metric: str | None = None,
        best_mode: Literal["min", "max"] = "min",
        asynchronous: bool = True,
        on_unfinished_save: OnUnfinishedSave = "wait",
    ) -> None:
        if every_n_steps < 1:
            raise ConfigError(f"checkpoint.every_n_steps {every_n_steps}", hint="use 1 or more")
        if on_unfinished_save == "skip" and not asynchronous:
            problem = "checkpoint.on_unfinished_save skip with asynchronous false, which leaves no save unfinished"
            raise ConfigError(problem, hint="leave out one of them")
        self.every_n_steps = every_n_steps
        self.retention = Retention(
            last=keep_last, every_n_steps=keep_every_n_steps, best=keep_best, metric=best_metric, mode=best_mode
        )
        self.asynchronous = asynchronous
        self.on_unfinished_save: OnUnfinishedSave = on_unfinished_save
        self._saved_step = 0
        self._lock: RunLock | None = None
        self._strategy: DirectoryCheckpoints | None = None
        self._first_validation = AfterOthers(at_start=self._make_up_for_validation)

    def save(self, trainer: Trainer) -> None:
        """Saves the state after the last optimizer step, unless there is a checkpoint of that step already.

        Called by every rank, at the end of a batch. With `asynchronous` it returns before the checkpoint is complete:
        see `wait`.

        Raises:
            CheckpointError: this one, or the last one, could not be saved.
        """
        if trainer.global_step == self._saved_step:
            return
        start = time.perf_counter()
        path = Path(trainer.default_root_dir) / FOLDER / name_of(trainer.global_step)
        options = SaveOptions(asynchronous=self.asynchronous, retention=self.retention)
        trainer.save_checkpoint(path, weights_only=False, storage_options=options)
        self._saved_step = trainer.global_step
        stall = {metrics.CHECKPOINT_STALL_SECONDS: time.perf_counter() - start}
        for logger in trainer.loggers:
            logger.log_metrics(stall, step=trainer.global_step - 1)

    def wait(self) -> None:
        """Waits until the last save is complete.

        Raises:
            CheckpointError: it failed.
        """
        if self._strategy is not None:
            self._strategy.wait_for_save()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._strategy = checkpoints_of(trainer.strategy)
        together(lambda: self._take(Path(trainer.default_root_dir)), "the run's folder cannot be used")
        # Behind what a signal in the middle of it would have to meet.
        put_last(trainer, self._first_validation)

    def _take(self, run_dir: Path) -> None:
        if rank_and_size()[0] != 0:
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(run_dir)
        clean(run_dir / FOLDER)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Before anything of the run is written.
        if self._strategy is not None:
            folder, step = Path(trainer.default_root_dir) / FOLDER, checkpoint["global_step"]
            choice = self._strategy.choice
            damaged = [path for path, _ in choice.skipped] if choice else []
            together(lambda: _refuse_to_go_back(folder, step, damaged), f"{folder} cannot be used")
            run_before_finished_fit(trainer, lambda: self._make_up_for_validation(trainer))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step
        assert self._strategy is not None
        choice, folder = self._strategy.choice, Path(trainer.default_root_dir) / FOLDER

        def make_way() -> None:
            if rank_and_size()[0] != 0:
                return
            for path, _ in choice.skipped if choice else ():
                if path.parent == folder:
                    put_aside(path)
            point_to_newest(folder)
            _refuse_to_go_back(folder, trainer.global_step, [])

        together(make_way, f"{folder} cannot be used")

    def _make_up_for_validation(self, trainer: Trainer) -> None:
        """Validates where the checkpoint that was loaded is of before the validation of its step."""
        choice = self._strategy.choice if self._strategy is not None else None
        if choice is None or choice.path is None or not validation_is_due(trainer):
            return
        step, folder = trainer.global_step, choice.path.parent
        if not broadcast_object(step in validated_steps(folder)):
            if rank_and_size()[0] == 0:
                log.info("validating after step %d, which was cut off", step)
            validate_now(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        assert self._strategy is not None
        self._strategy.check_save()
        if trainer.global_step % self.every_n_steps == 0 and not self._skips(trainer):
            self.save(trainer)

    def _skips(self, trainer: Trainer) -> bool:
        """Whether the checkpoint that is due is left out, the last one being written still. The same on every rank."""
        if self.on_unfinished_save == "wait" or trainer.global_step == self._saved_step:
            return False
        milestones = self.retention.every_n_steps
        if milestones and trainer.global_step % milestones == 0:
            return False
        # By the clock, nobody knows when.
        if self.retention.best and (trainer.val_check_batch is None or validation_is_due(trainer)):
            return False
        assert self._strategy is not None
        skips = broadcast_object(self._strategy.is_saving())
        if skips and rank_and_size()[0] == 0:
            told = "no checkpoint of step %d: the last one is still being written (checkpoint.on_unfinished_save: skip)"
            log.warning(told, trainer.global_step)
        return skips

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._strategy is not None and not trainer.sanity_checking:
            measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
            if self.retention.best and self.retention.metric not in measured:
                known = ", ".join(sorted(name for name in measured if name.startswith("validation/"))) or "none"
                raise ConfigError(
                    f"checkpoint.best_metric {self.retention.metric} is not measured", hint=f"use one of: {known}"
                )
            if rank_and_size()[0] == 0:
                note_validation(Path(trainer.default_root_dir) / FOLDER, trainer.global_step, measured)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)
        self.wait()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # The folder is free when nothing is written to it any more.
        if self._strategy is not None:
            self._strategy.finish_save()
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _refuse_to_go_back(folder: Path, step: int, damaged: list[Path]) -> None:
    """One folder has one history."""
    ahead = [path for path in list_checkpoints(folder) if step_of(path) > step and path not in damaged]
    if rank_and_size()[0] == 0 and ahead:
        raise CheckpointError(
            f"training would go on from step {step}, and {folder} goes up to {ahead[-1].name}",
            hint="go on with --resume auto, or give the older checkpoint to --resume with another --run.dir",
        )
