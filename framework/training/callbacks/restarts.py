"""Every start of a run, how it ended and what it reads, in the run's folder and in W&B's config."""

import logging
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.core.errors import Interrupted, Preempted
from framework.core.serialization import to_json
from framework.tracking.data_identity import note_data
from framework.tracking.loggers import restart_count
from framework.tracking.metric_files import write_merged
from framework.tracking.restarts import Outcome, describe_start, note_end, note_start
from framework.tracking.wandb_run import TrackedRun
from framework.training.checkpoint.provenance import data_of, git_revision, package_versions

log = logging.getLogger(__name__)


class Restarts(Callback):
    """Notes start and end in `attempts.jsonl`; a start without an end was killed, or still runs.

    What the run reads is noted in `data.json`. At the end all starts' metrics are put together in `metrics.csv`.
    """

    def __init__(self) -> None:
        self._restart: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        run_dir, device = Path(trainer.default_root_dir), pl_module.device
        self._restart = restart_count(trainer.loggers, run_dir)
        start = describe_start(
            restart=self._restart,
            step=trainer.global_step,
            world_size=trainer.world_size,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
            git_revision=git_revision(),
            packages=package_versions(),
        )
        note_start(run_dir, start)
        data = data_of(trainer)
        if data is not None:
            note_data(run_dir, data)
        digests = [] if data is None else [each.digest for each in data.train]
        for logger in trainer.loggers:
            if isinstance(logger, TrackedRun):
                logger.log_hyperparams({"provenance": {**to_json(start), "data": digests}})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(trainer, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        outcome: Outcome = "failed"
        if isinstance(exception, Preempted):
            outcome = "preempted"
        elif isinstance(exception, Interrupted | KeyboardInterrupt):
            outcome = "interrupted"
        self._end(trainer, outcome, " ".join(f"{type(exception).__name__}: {exception}".split()))

    def note_interrupt(self, trainer: Trainer) -> None:
        """Notes that the user ends this start at once; its metrics stay as they are."""
        if self._restart is not None:
            step, message = trainer.global_step, "Ctrl-C twice: nothing was saved"
            run_dir = Path(trainer.default_root_dir)
            note_end(run_dir, restart=self._restart, outcome="interrupted", step=step, message=message)

    def _end(self, trainer: Trainer, outcome: Outcome, message: str = "") -> None:
        if self._restart is None:
            return
        run_dir = Path(trainer.default_root_dir)
        try:
            note_end(run_dir, restart=self._restart, outcome=outcome, step=trainer.global_step, message=message)
            for logger in trainer.loggers:
                logger.save()
            write_merged(run_dir)
        except OSError as error:
            # A full disk may be what ended the run: that is the error to tell of.
            log.warning("the end of this start could not be noted in %s (%s)", run_dir, error.strerror)
        self._restart = None
