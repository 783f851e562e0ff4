"""A run's folder and its loggers: CSV files, and Weights & Biases without an account by default."""

import logging
import os
import re
import secrets
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from framework.core.errors import ConfigError
from framework.tracking.paths import expand_path
from framework.tracking.restarts import read_restarts
from framework.tracking.run_folder import METRICS, keep_wandb_id, saved_wandb_id
from framework.tracking.wandb_run import TrackedRun

WandbMode = Literal["offline", "online", "disabled"]
_MODE_VARIABLE = "WANDB_MODE"
_MODES: dict[str, WandbMode] = {
    "offline": "offline",
    "online": "online",
    "disabled": "disabled",
    # Of W&B's older versions, which still take them.
    "dryrun": "offline",
    "run": "online",
}
_PROJECT = "framework"
_NOT_IN_IDS = re.compile(r"[^\w.-]", re.ASCII)
_LATER_VARIABLE = re.compile(r"\$(?:[A-Za-z_]\w*|\{\w+\})")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run keeps everything, and how Weights & Biases sees it.

    Args:
        dir: the run's folder: recipe, checkpoints, metrics, samples and W&B's files. The same folder is the same run:
            `fit` goes on from its newest checkpoint. May begin with `~` or `$NAME/`.
        name: name shown in W&B; by default the environment's WANDB_NAME, else the folder's name.
        project: W&B project; by default the environment's WANDB_PROJECT, else `framework`.
        wandb: `offline` writes W&B's files for a later `framework runs sync` and needs no account; `online` sends them
            at once, and falls back to `offline` where W&B cannot be reached; `disabled` writes none. WANDB_MODE in the
            environment comes before it, but for `disabled`.
        histogram_every_n_steps: optimizer steps between histograms of the weights and gradients of each part of the
            model, in W&B; 0 makes none.
        artifacts: let W&B know, by reference, the manifests of the checkpoints and of the shard sets.
    """

    dir: str
    name: str | None = None
    project: str | None = None
    wandb: WandbMode = "offline"
    histogram_every_n_steps: int = 0
    artifacts: bool = False

    def __post_init__(self) -> None:
        if self.histogram_every_n_steps < 0:
            raise ConfigError(f"run.histogram_every_n_steps {self.histogram_every_n_steps}", hint="use 0 or more")
        if not self.dir.strip() or "://" in self.dir:
            raise ConfigError(f"run.dir {self.dir!r} is not a folder", hint="give a path of a file system")
        # Launchers and logs read it as a part of a line.
        if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in self.dir):
            raise ConfigError(f"run.dir {self.dir!r} has signs that end a line or are none", hint="leave them out")
        object.__setattr__(self, "dir", expand_path(self.dir))
        # It would become a folder of that name.
        if self.dir.startswith(("~", "$")):
            problem = f"run.dir {self.dir} begins with a user or a variable that is not known"
            raise ConfigError(problem, hint="set the variable, or give the whole path (./~x for such a name)")
        if found := _LATER_VARIABLE.search(self.dir):
            problem = f"run.dir {self.dir} has {found[0]}, which is read at the beginning alone"
            raise ConfigError(problem, hint="give its value, or let the shell do so: --run.dir")
        if Path(self.dir).is_file():
            raise ConfigError(f"run.dir {self.dir} is a file", hint="give a folder, which is made if there is none")


def wandb_mode(config: RunConfig) -> WandbMode:
    """How W&B is used: as WANDB_MODE in the environment says, else as the recipe does.

    A recipe that does not use W&B is not made to by a variable.

    Raises:
        ConfigError: WANDB_MODE is none of W&B's modes.
    """
    given = os.environ.get(_MODE_VARIABLE, "").strip()
    if config.wandb == "disabled" or not given:
        return config.wandb
    if given not in _MODES:
        raise ConfigError(f"WANDB_MODE is {given}", hint=f"set it to one of {', '.join(_MODES)}, or unset it")
    return _MODES[given]


def _wandb_id(folder: Path) -> str:
    """The run's W&B id, chosen once and kept, so that a resumed run is the same run.

    WANDB_RUN_ID, which a sweep sets too, names that of a new folder.

    Raises:
        ConfigError: WANDB_RUN_ID has signs that W&B or a file name may not take.
    """
    chosen, kept = os.environ.get("WANDB_RUN_ID", "").strip(), saved_wandb_id(folder)
    if found := _NOT_IN_IDS.search(chosen):
        raise ConfigError(
            f"WANDB_RUN_ID {chosen} has {found[0]!r}", hint="use letters, digits, -, _ and dots, or unset it"
        )
    if kept is None:
        kept = chosen or secrets.token_hex(4)
        _keep_id(folder, kept)
    elif chosen and chosen != kept:
        _tell("WANDB_RUN_ID says %s, and %s goes on as %s: unset it, or choose another run.dir", chosen, folder, kept)
    return kept


@rank_zero_only
def _keep_id(folder: Path, identity: str) -> None:
    # The other ranks, which start at the same moment and write no run, would put theirs in its place.
    keep_wandb_id(folder, identity)


@rank_zero_only
def _tell(message: str, *values: object) -> None:
    log.info(message, *values)


def make_loggers(config: RunConfig) -> list[Logger]:
    """CSV files in `metrics/version_N` (one for each start of the run) and, unless disabled, W&B."""
    folder, mode = Path(config.dir), wandb_mode(config)
    if mode != config.wandb:
        _tell("WANDB_MODE says %s: that counts, and not run.wandb %s", mode, config.wandb)
    # Written at every call: a killed process loses no metric of a step before its last checkpoint.
    loggers: list[Logger] = [CSVLogger(folder, name=METRICS, version=_next_start(folder), flush_logs_every_n_steps=1)]
    if mode != "disabled":
        loggers.append(
            TrackedRun(
                folder,
                identity=_wandb_id(folder),
                name=config.name or os.environ.get("WANDB_NAME") or folder.resolve().name,
                project=config.project or os.environ.get("WANDB_PROJECT") or _PROJECT,
                online=mode == "online",
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
