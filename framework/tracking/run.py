"""A run's folder and its loggers: CSV files, and Weights & Biases without an account by default."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import wandb
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

METRICS = "metrics"
RECIPE = "recipe.yaml"
_WANDB_ID = "wandb-id"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run keeps everything, and how Weights & Biases sees it.

    Args:
        dir: the run's folder: recipe, checkpoints, metrics, samples and W&B's files. The same folder is the same run:
            `fit` goes on from its newest checkpoint.
        name: name shown in W&B; the folder's name by default.
        project: W&B project.
        wandb: `offline` writes W&B's files for a later `wandb sync` and needs no account; `online` sends them at once;
            `disabled` writes none.
    """

    dir: str
    name: str | None = None
    project: str = "framework"
    wandb: Literal["offline", "online", "disabled"] = "offline"


def saved_wandb_id(folder: str | Path) -> str | None:
    """The W&B id of the run in a folder, if it has one."""
    file = Path(folder) / _WANDB_ID
    return file.read_text().strip() if file.is_file() else None


def keep_wandb_id(folder: Path, identity: str) -> None:
    """Makes the run in a folder, which has none yet, go on as a run that W&B knows."""
    if saved_wandb_id(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _WANDB_ID).write_text(identity)


def _wandb_id(folder: Path) -> str:
    """The run's W&B id, made once and kept, so that a resumed run is the same run."""
    keep_wandb_id(folder, secrets.token_hex(4))
    identity = saved_wandb_id(folder)
    assert identity is not None
    return identity


def make_loggers(config: RunConfig) -> list[Logger]:
    """CSV files in `metrics/version_N` (one for each start of the run) and, unless disabled, W&B."""
    folder = Path(config.dir)
    # Written at every call: a killed process loses no metric of a step before its last checkpoint.
    loggers: list[Logger] = [CSVLogger(folder, name=METRICS, flush_logs_every_n_steps=1)]
    if config.wandb != "disabled":
        offline = config.wandb == "offline"
        loggers.append(
            WandbLogger(
                name=config.name or folder.name,
                save_dir=folder,
                project=config.project,
                id=_wandb_id(folder),
                offline=offline,
                resume=None if offline else "allow",
                settings=wandb.Settings(console="off", silent=True),
            )
        )
    return loggers


def finish_loggers() -> None:
    """Complete W&B's files; Lightning leaves its run open until the process ends."""
    if wandb.run is not None:
        wandb.finish()
