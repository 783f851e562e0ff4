"""Weights & Biases as a logger that training cannot fail because of: one run for all starts, offline if it is down."""

import logging
import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from framework.tracking.images import evenly_spaced, list_images
from framework.tracking.run_folder import UNSENT
from framework.tracking.secrets import scrubbed, scrubbed_text
from framework.tracking.wandb_compat import (
    DATA_DIR_VARIABLE,
    SETTINGS_OF_WRITING,
    SETTINGS_WITHOUT_METADATA,
    data_file,
    gave_up,
    without_job_inputs,
)

GLOBAL_STEP = "trainer/global_step"
RESTART = "attempt"
"""Key of the restart count in every row; runs that began before go on with it."""
TABLE_ROWS = 16

log = logging.getLogger(__name__)


class TrackedRun(WandbLogger):
    """Logs one training to one W&B run, whatever the number of its starts, and never stops it.

    All starts share the run's id, and `trainer/global_step` is the axis of every metric. Each row carries `attempt`,
    the restart count: a step that is taken twice has a row for each, and nothing is overwritten. What W&B would
    collect by itself (code, git state, environment, command, console) stays off: the run's config says it, scrubbed.

    Where the server cannot be reached, or there is no account, this start is recorded offline with a warning. Where W&B
    fails later, the warning says so and training goes on without it.

    Args:
        folder: of the run; W&B's files go into `wandb/` there.
        identity: the run's id.
        name: of the run, as W&B shows it.
        project: that W&B lists it in.
        online: send at once.
        restart: gives the restart count of this start; asked for when the first row is written.

    Attributes:
        init_seconds, finish_seconds: how long a server may keep training waiting at its start and its end.
    """

    init_seconds: ClassVar[float] = 30.0
    finish_seconds: ClassVar[float] = 30.0

    def __init__(
        self,
        folder: Path,
        *,
        identity: str,
        name: str,
        project: str,
        online: bool,
        restart: Callable[[], int],
    ) -> None:
        shown_name = scrubbed_text(name)
        super().__init__(name=shown_name, save_dir=folder, project=project, id=identity, offline=not online)
        self._identity, self._shown_name, self._shown_project = identity, shown_name, project
        self._run: wandb.Run | None = None
        self._folder, self._online, self._count_restarts = folder, online, restart
        self._restart: int | None = None
        self._table_of = 0
        self._failed = False
        self._image_folder: tuple[str, Path] | None = None
        self._tables: dict[str, Callable[[], None]] = {}
        self._table_rows: dict[str, int] = {}
        self._set_data_dir = False
        self._file: Path | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> wandb.Run:
        """W&B's run; one that does nothing after W&B has failed."""
        if self._run is None:
            self._run = self._begin()
        return self._run

    def _begin(self) -> wandb.Run:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._online:
            try:
                if not wandb.login(prompt=False, verify=False):
                    raise RuntimeError("no API key: set WANDB_API_KEY, or call `wandb login` once")
                return self._initialised("online")
            except Exception as error:
                log.warning(
                    "Weights & Biases cannot be reached (%s): this start is recorded offline; "
                    "send it later with: framework runs sync %s",
                    *(_short(error), self._folder),
                )
                self._online = False
                # The service still holds the run's id.
                wandb.teardown()
        try:
            return self._initialised("offline")
        except Exception as error:
            self._tell(error)
            return wandb.init(mode="disabled")

    def _initialised(self, mode: Literal["online", "offline"]) -> wandb.Run:
        # Tables are staged there until they are sent; its place is known by this variable only.
        if DATA_DIR_VARIABLE not in os.environ:
            os.environ[DATA_DIR_VARIABLE] = str((self._folder / "wandb").resolve())
            self._set_data_dir = True
        with without_job_inputs():
            run = wandb.init(
                id=self._identity,
                name=self._shown_name,
                project=self._shown_project,
                dir=self._folder,
                mode=mode,
                resume="allow" if mode == "online" else None,
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    save_code=False,
                    disable_code=True,
                    disable_git=True,
                    init_timeout=self.init_seconds,
                    finish_timeout=self.finish_seconds,
                    finish_timeout_raises=True,
                    **SETTINGS_WITHOUT_METADATA,
                    **SETTINGS_OF_WRITING,
                ),
            )
        self._file = data_file(run)
        # Until it has all got through: a process that is killed cannot say so.
        self._mark(unsent=mode == "online")
        run.define_metric(GLOBAL_STEP)
        run.define_metric("*", step_metric=GLOBAL_STEP, step_sync=True)
        return run

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, object] | Namespace) -> None:
        clean = scrubbed(dict(params) if isinstance(params, Mapping) else vars(params))
        self._guarded(lambda: super(TrackedRun, self).log_hyperparams(clean))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, object], step: int | None = None) -> None:
        if self._restart is None:
            self._restart = self._count_restarts()
        row: dict[str, object] = {**metrics, RESTART: self._restart}
        if step is not None:
            row[GLOBAL_STEP] = step
        self._guarded(lambda: self.experiment.log(row))

    @rank_zero_only
    def log_image_file(self, name: str, file: Path, step: int) -> None:
        """Logs an image file `step=NNNNNNNN.png`, and now and then a table over all images of its folder.

        The table has at most `TABLE_ROWS` rows, spread over the run. It is written when the number of images is a
        power of two, and by `close`: all of them together stay small.

        Args:
            name: in W&B; the table has `_over_time` after it.
            file: PNG.
            step: optimizer step.
        """
        self._guarded(lambda: self.log_metrics({name: wandb.Image(str(file))}, step))
        images = list_images(file.parent)
        self._image_folder = (name, file.parent)
        if len(images) & (len(images) - 1) == 0:
            self._log_table()

    def _log_table(self) -> None:
        if self._image_folder is None or self._failed:
            return
        name, folder = self._image_folder
        images = list_images(folder)
        if not images or len(images) == self._table_of:
            return
        self._table_of = len(images)
        chosen = evenly_spaced(sorted(images), TABLE_ROWS)

        def write() -> None:
            rows: list[Any] = [[step, wandb.Image(str(images[step]))] for step in chosen]
            table = wandb.Table(columns=["step", name], data=rows)
            self.log_metrics({f"{name}_over_time": table}, chosen[-1])

        self._guarded(write)

    @rank_zero_only
    def log_figure(self, name: str, image: Image.Image, step: int) -> None:
        """Logs an image that is in no file.

        Args:
            name: in W&B.
            image: in RGB.
            step: optimizer step.
        """
        self._guarded(lambda: self.log_metrics({name: wandb.Image(image)}, step))

    @rank_zero_only
    def log_page(self, name: str, html: str, step: int) -> None:
        """Logs an HTML page as it is.

        Args:
            name: in W&B.
            html: the page; it should need nothing from outside.
            step: optimizer step.
        """
        self._guarded(lambda: self.log_metrics({name: wandb.Html(html, inject=False)}, step))

    @rank_zero_only
    def log_growing_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], step: int) -> None:
        """Logs a table that grows by rows, now and then: at every doubling of its rows, and by `close`.

        W&B keeps every table whole: all of them together are no more than three times the last.

        Args:
            name: in W&B.
            columns: their names.
            rows: a value for each column.
            step: optimizer step.
        """
        before, write = self._table_rows.get(name, 0), partial(self._write_table, name, columns, rows, step)
        if len(rows) >= 2 * before:
            write()
        else:
            self._tables[name] = write

    def _write_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], step: int) -> None:
        self._tables.pop(name, None)
        self._table_rows[name] = len(rows)
        data: list[Any] = [list(row) for row in rows]
        self._guarded(lambda: self.log_metrics({name: wandb.Table(columns=list(columns), data=data)}, step))

    @rank_zero_only
    def log_histograms(self, histograms: Mapping[str, tuple[Any, Any]], step: int) -> None:
        """Logs histograms given as counts and the edges between them, one more than counts."""
        self._guarded(
            lambda: self.log_metrics({n: wandb.Histogram(np_histogram=h) for n, h in histograms.items()}, step)
        )

    @rank_zero_only
    def log_reference(self, name: str, kind: str, uri: str, metadata: Mapping[str, object]) -> None:
        """Logs an artifact that points at a file or URL: nothing of it is sent, but where it is and what it is.

        Args:
            name: of the artifact.
            kind: its type, such as checkpoint.
            uri: where it is; secrets are removed.
            metadata: what it is, in JSON's types; secrets are removed.
        """

        def write() -> None:
            artifact = wandb.Artifact(name, kind, metadata=scrubbed(metadata))
            artifact.add_reference(scrubbed_text(uri), checksum=False)
            self.experiment.log_artifact(artifact)

        self._guarded(write)

    @rank_zero_only
    def close(self, *, exit_code: int = 0, preempted: bool = False) -> None:
        """Completes W&B's files, and sends the rest for a while where it is online."""
        run = self._run
        if run is None:
            return
        self._log_table()
        for write in list(self._tables.values()):
            write()
        try:
            if preempted:
                run.mark_preempting()
            run.finish(exit_code=exit_code)
        except Exception as error:
            if not self._failed:
                log.warning(
                    "Weights & Biases did not get everything (%s): %s is kept; send it later with: "
                    "framework runs sync %s",
                    *(_short(error), self._file, self._folder),
                )
        else:
            self._mark(unsent=self._online and (self._failed or (self._file is not None and gave_up(self._file))))
        self._run = None
        if self._set_data_dir:
            os.environ.pop(DATA_DIR_VARIABLE, None)
            self._set_data_dir = False

    def _guarded(self, call: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:
            self._failed = True
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        log.warning("Weights & Biases failed (%s): training goes on, the rest is in the CSV files only", _short(error))

    def _mark(self, *, unsent: bool) -> None:
        if self._file is None:
            return
        marker = self._file.with_name(self._file.name + UNSENT)
        if unsent:
            marker.touch()
        else:
            marker.unlink(missing_ok=True)


def _short(error: Exception) -> str:
    """An error in one line."""
    first = scrubbed_text(str(error)).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
