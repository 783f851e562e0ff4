"""A run's folder and its loggers: CSV files, and Weights & Biases without an account by default."""

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import CSVLogger, Logger

from framework.core.errors import ConfigError
from framework.tracking.restarts import read_restarts
from framework.tracking.run_folder import METRICS, keep_wandb_id, saved_wandb_id
from framework.tracking.wandb_run import TrackedRun


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run keeps everything, and how Weights & Biases sees it.

    Args:
        dir: the run's folder: recipe, checkpoints, metrics, samples and W&B's files. The same folder is the same run:
            `fit` goes on from its newest checkpoint.
        name: name shown in W&B; the folder's name by default.
        project: W&B project.
        wandb: `offline` writes W&B's files for a later `framework runs sync` and needs no account; `online` sends them
            at once, and falls back to `offline` where W&B cannot be reached; `disabled` writes none.
        histogram_every_n_steps: optimizer steps between histograms of the weights and gradients of each part of the
            model, in W&B; 0 makes none.
        artifacts: let W&B know, by reference, the manifests of the checkpoints and of the shard sets.
    """

    dir: str
    name: str | None = None
    project: str = "framework"
    wandb: Literal["offline", "online", "disabled"] = "offline"
    histogram_every_n_steps: int = 0
    artifacts: bool = False

    def __post_init__(self) -> None:
        if self.histogram_every_n_steps < 0:
            raise ConfigError(f"run.histogram_every_n_steps {self.histogram_every_n_steps}", hint="use 0 or more")


def _wandb_id(folder: Path) -> str:
    """The run's W&B id, made once and kept, so that a resumed run is the same run; a sweep has already chosen one."""
    chosen = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
    keep_wandb_id(folder, chosen or secrets.token_hex(4))
    identity = saved_wandb_id(folder)
    assert identity is not None
    return identity


def make_loggers(config: RunConfig) -> list[Logger]:
    """CSV files in `metrics/version_N` (one for each start of the run) and, unless disabled, W&B."""
    folder = Path(config.dir)
    # Written at every call: a killed process loses no metric of a step before its last checkpoint.
    loggers: list[Logger] = [CSVLogger(folder, name=METRICS, version=_next_start(folder), flush_logs_every_n_steps=1)]
    if config.wandb != "disabled":
        loggers.append(
            TrackedRun(
                folder,
                identity=_wandb_id(folder),
                name=config.name or folder.name,
                project=config.project,
                online=config.wandb == "online",
                restart=lambda: restart_count(loggers, folder),
            )
        )
    return loggers


def _next_start(folder: Path) -> int:
    """Number of the start that begins: one more than the last that trained.

    Lightning would count the folders of starts that ended before training too, such as one with another architecture.
    """
    number = _after_noted(folder)
    while (folder / METRICS / f"version_{number}" / "metrics.csv").is_file():
        number += 1
    return number


def restart_count(loggers: Iterable[Logger], run_dir: Path) -> int:
    """Number of this start: that of its CSV folder; without CSV files, one more than the starts noted so far."""
    for logger in loggers:
        if isinstance(logger, CSVLogger) and isinstance(logger.version, int):
            return logger.version
    return _after_noted(run_dir)


def _after_noted(run_dir: Path) -> int:
    return max((restart.start.restart + 1 for restart in read_restarts(run_dir)), default=0)


def finish_loggers(loggers: Iterable[Logger], *, exit_code: int = 0, preempted: bool = False) -> None:
    """Completes W&B's files; Lightning leaves its run open until the process ends.

    Args:
        loggers: of the run; those that are not W&B's are passed over.
        exit_code: what the process will end with.
        preempted: it waits to be started again.
    """
    for logger in loggers:
        if isinstance(logger, TrackedRun):
            logger.close(exit_code=exit_code, preempted=preempted)
