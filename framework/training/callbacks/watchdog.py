"""An end with a report instead of a job that hangs."""

import faulthandler
import os
import secrets
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import ClassVar

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from framework.core.compat.torch_compat import default_store
from framework.core.errors import ConfigError, Interrupted, Preempted
from framework.training.callbacks.order import AfterOthers, put_last
from framework.training.shapes import Scalar
from framework.training.signs_of_life import Beat, SignsOfLife

EXIT_CODE = 124
"""Of a process that the watchdog ends; timeout(1) uses the same."""

_BEAT_SECONDS = 1.0
_SILENCE_SECONDS = 3.0
"""A rank whose beat does not change for so long is missing."""
_PATIENCE_SECONDS = 8.0
"""For the other ranks' beats, when the one that serves them may be the one that hangs."""
_BACKSTOP_SECONDS = 60.0
"""After this much more the process is ended even if its interpreter is stuck."""
_TIMER_SLACK_SECONDS = 10.0
"""By which that may be too early or too late."""


@dataclass(frozen=True, kw_only=True)
class WatchdogConfig:
    """How long a rank may take, in seconds; 0 stands for no limit.

    Args:
        step_seconds: an optimizer step's micro-batch: waiting for its data, forward, backward, optimizer.
        startup_seconds: from the set-up to the end of the first micro-batch, with compilation and loading.
        validation_seconds: a batch of the validation; also what comes between two steps, such as a grid of samples.
        checkpoint_seconds: a checkpoint, and the end of the run.
    """

    step_seconds: float = 900.0
    startup_seconds: float = 3600.0
    validation_seconds: float = 1800.0
    checkpoint_seconds: float = 1800.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0:
                raise ConfigError(f"guards.watchdog.{name} {value}", hint="use seconds, or 0 for no limit")


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """Where a rank is; replaced whole, so that other threads see one moment.

    Attributes:
        step: optimizer step, from 0.
        finished: the last stage that was finished.
        stage: the present one.
        since: when it began, on this process' monotonic clock.
        limit: seconds allowed from `counted` on; 0 for no limit.
        counted: when the time that is limited began; several stages may share it.
    """

    step: int
    finished: str
    stage: str
    since: float
    limit: float
    counted: float

    def late(self) -> bool:
        """Whether the time is up."""
        return bool(self.limit) and time.monotonic() - self.counted > self.limit

    def describe(self) -> str:
        """For the report."""
        return (
            f'step {self.step}: last finished "{self.finished}", in "{self.stage}" for '
            f"{time.monotonic() - self.since:.1f} s"
        )


class Watchdog(Callback):
    """Ends the job when a rank takes too long, after telling what every rank finished last and which are missing.

    A thread on each rank watches the rank's own time, so nothing that hangs elsewhere can hold it up. It prints the
    main thread's stack and ends the process with `EXIT_CODE`, so that a launcher starts the job again. Another thread
    sends signs of life through the process group's store, without collectives. The first rank to be late reads those of
    all others, twice: who does not change is missing, as a stopped, dead or cut-off rank is. The others follow it at
    once.

    Args:
        config: how long a rank may take.
    """

    def __init__(self, config: WatchdogConfig) -> None:
        self.config = config
        self._watch: _Watch | None = None
        self._started = False
        self._next_step = AfterOthers(self.wait_for_data)

    # Stages, in the order of a step.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._started = False
        _Watch.stop_last()
        # A store may outlive the job that the launcher starts again: signs of life of the last one mean nothing.
        restart = trainer.strategy.broadcast(secrets.token_hex(8))
        self._watch = _Watch(_first_mark(self.config.startup_seconds), restart)
        put_last(trainer, self._next_step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter(trainer, "data wait")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._enter(trainer, "forward")

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Scalar) -> None:
        self._enter(trainer, "backward")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter(trainer, "optimizer")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        self._started = True
        self._enter(trainer, "callbacks", self.config.validation_seconds)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]) -> None:
        self._enter(trainer, "checkpoint", self.config.checkpoint_seconds)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter(trainer, "validation", self.config.validation_seconds)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._enter(trainer, "validation", self.config.validation_seconds)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.wait_for_data(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter(trainer, "end of the run", self.config.checkpoint_seconds)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        together = isinstance(exception, Preempted | Interrupted)
        if self._watch is not None and self._watch.num_ranks > 1 and not together:
            # What is left to do may wait for ranks that do not come any more: it is watched until the process's end.
            self._watch.enter("end after an error", trainer.global_step, self.config.checkpoint_seconds)
            self._watch = None
        self._stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def wait_for_data(self, trainer: Trainer) -> None:
        """The time of the next step begins."""
        self._enter(trainer, "data wait", self.config.step_seconds)

    def _enter(self, trainer: Trainer, stage: str, limit: float | None = None) -> None:
        """Note a stage; with a limit, its time is counted anew, else it shares that of the stage before."""
        if self._watch is not None:
            self._watch.enter(stage, trainer.global_step, limit if self._started else None)

    def _stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None


def _first_mark(limit: float) -> _Mark:
    now = time.monotonic()
    return _Mark(step=0, finished="nothing", stage="start-up", since=now, limit=limit, counted=now)


class _Watch:
    """The threads of one rank.

    Two connections to the store, of their own: one may be blocked in a thread that nobody waits for.
    """

    _last: ClassVar["_Watch | None"] = None

    def __init__(self, mark: _Mark, restart: str) -> None:
        _Watch._last = self
        self.mark = mark
        self._ended, self._called = threading.Event(), threading.Event()
        self._timer, self._timer_ends = threading.Lock(), 0.0
        grouped = dist.is_available() and dist.is_initialized()
        self.rank, self.num_ranks = (dist.get_rank(), dist.get_world_size()) if grouped else (0, 1)
        if self.num_ranks > 1:
            self._beats, self._questions = self._connect(restart), self._connect(restart)
            threading.Thread(target=self._beat, daemon=True, name="watchdog beats").start()
        threading.Thread(target=self._guard, daemon=True, name="watchdog").start()
        self._arm()

    def enter(self, stage: str, step: int, limit: float | None) -> None:
        """Note where the rank is.

        Args:
            stage: what begins.
            step: optimizer step, from 0.
            limit: seconds from now on; None shares the time of the stage before.
        """
        old, now = self.mark, time.monotonic()
        self.mark = _Mark(
            step=step,
            finished=old.finished if old.stage == stage else old.stage,
            stage=stage,
            since=now,
            limit=old.limit if limit is None else limit,
            counted=old.counted if limit is None else now,
        )
        if limit is not None:
            self._arm(only_longer=True)

    @classmethod
    def stop_last(cls) -> None:
        """Ends the watch of a run that an error has ended, in a process that goes on."""
        if cls._last is not None:
            cls._last.stop()

    def stop(self) -> None:
        """Ends the watch."""
        with self._timer:
            self._ended.set()
            _Watch._last = None
            faulthandler.cancel_dump_traceback_later()

    def _arm(self, *, only_longer: bool = False) -> None:
        """A timer without Python: where C code holds the interpreter's lock, no thread of it runs.

        It is a thread, made anew each time: of short steps not in each, and the guard's thread sees to shorter times.

        Args:
            only_longer: leave a timer that runs for long enough, or longer.
        """
        with self._timer:
            # Read here: the guard would else put the timer back to a stage that has just ended.
            mark, now = self.mark, time.monotonic()
            ends = mark.counted + mark.limit + _SILENCE_SECONDS + _PATIENCE_SECONDS + _BACKSTOP_SECONDS
            if self._ended.is_set() or sys.__stderr__ is None:
                return
            if not mark.limit:
                faulthandler.cancel_dump_traceback_later()
                self._timer_ends = 0.0
                return
            early = ends - self._timer_ends
            if (early if only_longer else abs(early)) > _TIMER_SLACK_SECONDS:
                self._timer_ends = ends
                faulthandler.dump_traceback_later(max(1.0, ends - now), exit=True, file=sys.__stderr__)

    def _guard(self) -> None:
        while not self._ended.wait(min(_BEAT_SECONDS, (self.mark.limit or _BEAT_SECONDS) / 10)):
            self._arm()
            if self.mark.late() or self._called.is_set():
                self._give_up()

    def _beat(self) -> None:
        """Sends signs of life; learns here that another rank has given up."""
        number = 0
        while not self._ended.is_set():
            try:
                self._beats.send(Beat(number=number, at=self.mark.describe()))
                if self._beats.all_end():
                    self._called.set()
            except RuntimeError:
                pass  # The store may come back; if it does not, the time of the step tells.
            number += 1
            self._ended.wait(_BEAT_SECONDS)

    def _give_up(self) -> None:
        mark = self.mark
        lines = []
        if self._called.is_set():
            lines.append(f"watchdog: rank {self.rank} ends with the others; at {mark.describe()}")
        else:
            lines.append(f"watchdog: rank {self.rank} is late (limit {mark.limit:g} s); at {mark.describe()}")
            if self.num_ranks > 1:
                lines += self._ask_others()
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        text = "\n".join([*lines, f"rank {self.rank}'s main thread:", stack])
        # One write, past whatever the main thread holds: lines of other ranks do not come in between.
        os.write(2, text.encode())
        os._exit(EXIT_CODE)

    def _ask_others(self) -> list[str]:
        """What the others' signs of life say, from a thread that may hang."""
        answer: list[str] = []
        asking = threading.Thread(target=lambda: answer.extend(self._examine()), daemon=True)
        asking.start()
        asking.join(_SILENCE_SECONDS + _PATIENCE_SECONDS)
        if answer:
            return answer
        agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        host = "the launcher's agent of the first node" if agent else "rank 0"
        return [f"missing: {host}, which serves the store of the process group, does not answer"]

    def _examine(self) -> list[str]:
        """Who is where; empty when the store cannot be read."""
        try:
            before = self._questions.read()
            time.sleep(_SILENCE_SECONDS)
            after = self._questions.read()
            self._questions.end_all()
        except RuntimeError:
            return []
        lines, missing = [], []
        for rank in range(self.num_ranks):
            beat = after[rank]
            where = beat["at"] if beat else "not started"
            gone = rank != self.rank and before[rank] == beat
            missing += [str(rank)] * gone
            lines.append(f"  rank {rank}: {'MISSING, last seen at ' if gone else ''}{where}")
        return [*lines, f"missing: {'rank ' + ', '.join(missing) if missing else 'none, every rank is alive'}"]

    def _connect(self, restart: str) -> SignsOfLife:
        """A connection of its own to the process group's store: answers do not wait for other threads' questions."""
        store = dist.PrefixStore(f"watchdog/{restart}", default_store())
        store.set_timeout(timedelta(seconds=_PATIENCE_SECONDS))
        return SignsOfLife(store, self.rank, self.num_ranks)
