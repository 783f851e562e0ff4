"""The bar of a run's progress: optimizer steps out of all, the time that is left, and the metrics."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.columns import Columns
from rich.console import Console, RenderableType  # noqa: TID251 - for its type
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from framework.core.compat.lightning_compat import logs_this_step
from framework.core.console import console as terminal
from framework.tracking.metric_names import is_loss
from framework.training.display.pace import Pace, duration
from framework.training.length import total_steps

_REFRESH_SECONDS = 0.5
_ROOMY = 60
"""Columns of a terminal on which steps, a bar and the time that is left fit into a line."""
_LINE_SECONDS = 600.0
"""Most time between two lines where there is no terminal."""


class _Bar(Progress):
    """Bars, and the metrics below them in as many columns as the terminal is wide."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[told]}", markup=False),
        )
        self.metrics: list[str] = []
        super().__init__(*columns, console=console, expand=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.metrics:
            yield Columns([Text(each, no_wrap=True) for each in self.metrics], padding=(0, 2))


class StepProgressBar(ProgressBar):
    """A bar of the whole run in optimizer steps, those of earlier starts included, and one of each validation.

    Where there is no terminal, such as in a job's log, a line says the same, at most every ten minutes. Losses and what
    else is logged for the bar are those of the last log: to read a number from a GPU is to wait for it. A module does
    not ask for its losses to be shown (`prog_bar`), since Lightning would read them in every step.

    Args:
        console: where it is shown.
        clock: seconds.
    """

    def __init__(self, console: Console = terminal, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.console, self.clock = console, clock
        self._enabled = True
        self._bar: _Bar | None = None
        self._training = self._validating = TaskID(0)
        self._total = -1
        self._logged: dict[str, Any] = {}

    def disable(self) -> None:
        """Shows nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Shows the bar, once training starts."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pace, self._total = Pace(clock=self.clock), total_steps(trainer)
        self._shown_at = self._said_at = self.clock()
        self._wait = 30.0
        if self._enabled and self.console.is_interactive:
            self._bar = _Bar(self.console)
            total = None if self._total < 0 else self._total
            self._training = self._bar.add_task("", total=total, completed=trainer.global_step, told="")
            self._show(trainer)
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        if not self._enabled:
            return
        self._pace.finish(trainer.global_step)
        if logs_this_step(trainer):
            self._read(trainer, pl_module)
        now = self.clock()
        if now - self._shown_at < _REFRESH_SECONDS and trainer.global_step != self._total:
            return
        self._shown_at = now
        if self._bar is not None:
            self._show(trainer)
        elif not self.console.is_interactive and now - self._said_at >= self._wait:
            self._said_at, self._wait = now, min(2 * self._wait, _LINE_SECONDS)
            self.console.print(", ".join([f"step {self.done(trainer)}", *self.speed(), *self.shown()]))

    def done(self, trainer: Trainer) -> str:
        """Steps out of how many: `120/1,000`, or `120` in a run without an end."""
        return f"{trainer.global_step:,}" + (f"/{self._total:,}" if self._total >= 0 else "")

    def speed(self) -> list[str]:
        """Of the steps of this start, and how long the rest will take, as far as they are known."""
        each, left = self._pace.seconds_per_step, self._pace.seconds_left(self._total)
        if not each:
            return []
        rate = f"{1 / each:.3g} steps/s" if each < 1 else f"{each:.3g} s/step"
        return [rate] if left is None else [rate, f"{duration(left)} left"]

    def shown(self) -> list[str]:
        """The metrics of the last log: name and value of each."""
        return [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self._logged.items()
        ]

    def _read(self, trainer: Trainer, pl_module: LightningModule) -> None:
        losses = {name: value.item() for name, value in trainer.callback_metrics.items() if is_loss(name)}
        self._logged = losses | {
            name: value for name, value in self.get_metrics(trainer, pl_module).items() if name != "v_num"
        }

    def _show(self, trainer: Trainer) -> None:
        assert self._bar is not None
        beside, below = (self.speed(), []) if self.console.width >= _ROOMY else ([], self.speed())
        self._bar.metrics = [*below, *self.shown()]
        description = f"step {self.done(trainer)}"
        told = "  ".join(beside)
        self._bar.update(self._training, description=description, completed=trainer.global_step, told=told)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or not self.console.is_interactive:
            return
        if self._bar is None:
            self._bar = _Bar(self.console)
            self._bar.start()
        batches = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        total = sum(batches) if isinstance(batches, list) else batches
        self._validating = self._bar.add_task("validation", total=total, told="")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._bar is not None:
            self._bar.advance(self._validating)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled:
            return
        self._read(trainer, pl_module)
        if self._bar is not None:
            self._bar.remove_task(self._validating)
            if trainer.state.fn != "fit" or trainer.sanity_checking:
                self._stop()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._show(trainer)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
