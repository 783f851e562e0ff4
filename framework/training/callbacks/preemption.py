"""A signal to stop becomes a checkpoint and an exit code that asks to be started again."""

import json
import signal
from pathlib import Path
from types import FrameType

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from framework.core.compat.lightning_compat import as_before_validation, leave_signals_alone, log_finished_step
from framework.core.errors import Interrupted, Preempted
from framework.tracking.run_folder import PREEMPTED
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.order import put_last
from framework.training.callbacks.restarts import Restarts
from framework.training.interrupts import InterruptWatch
from framework.training.stop_vote import StopVote

PREEMPTING = (signal.SIGTERM, signal.SIGUSR1)
INTERRUPTING = (signal.SIGINT, signal.SIGUSR2)
"""The second is how the launchers pass Ctrl-C on: it may come more than once."""
_NONE, _PREEMPT, _INTERRUPT = range(3)
"""What a rank has been told; the largest counts."""


class Preemption(Callback):
    """On a signal to stop on any rank: all ranks finish the step, save together and end with a code that says why.

    SIGTERM and SIGUSR1 are a scheduler's: exit code 75, start me again. SIGINT (Ctrl-C) and SIGUSR2 are the user's:
    exit code 130. A second SIGINT ends the process at once; where SIGINT is ignored, as under the launchers and in the
    background of a shell, it stays so.

    The handler sets a flag, no more; Lightning's, which save or broadcast inside the handler, are replaced and put back
    by Lightning's own clean-up. The ranks agree by a maximum over their flags in a CPU group: it starts at the end of a
    batch and is looked at after the next, so that no step waits for it, and the stop comes one batch later. So it does
    in a validation, which may take longer than a scheduler waits: the run that goes on makes it from its beginning.
    A signal before training starts has its usual effect; there is nothing to save yet.

    Raises:
        Preempted: after the checkpoint is complete.
        Interrupted: the same, when the user has asked for it.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._watch: InterruptWatch | None = None
        self._vote: StopVote | None = None
        self._agreed = _NONE
        self._step = 0
        self._at_step_end = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            # What the others note at the end of a batch belongs in the checkpoint.
            put_last(trainer, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._received, self._agreed, self._step = None, _NONE, trainer.global_step
        # A validation that is made up for comes after the last one.
        self._at_step_end = trainer.global_step > 0
        if trainer.world_size > 1:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup), "every rank is a member"
            self._vote = StopVote(group)
            # The vote replaces Lightning's own broadcast.
            leave_signals_alone(trainer)
        for number in (*PREEMPTING, *INTERRUPTING):
            if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)
        if self._watch is None:
            code, speaks = Interrupted.exit_code, trainer.is_global_zero
            self._watch = InterruptWatch(lambda: _note_interrupt(trainer), code=code, speaks=speaks)
        if trainer.is_global_zero:
            (Path(trainer.default_root_dir) / PREEMPTED).unlink(missing_ok=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A user's wish counts more than a scheduler's.
        if self._received is None or (number in INTERRUPTING and self._received in PREEMPTING):
            self._received = signal.Signals(number)

    def _wish(self) -> int:
        return _NONE if self._received is None else _INTERRUPT if self._received in INTERRUPTING else _PREEMPT

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        self._agreed = self._agreed or self._vote_of_last_batch(trainer)
        # Within an accumulation the gradients would be lost.
        self._at_step_end = trainer.global_step != self._step
        if self._agreed and self._at_step_end and not _finished(trainer):
            received = self._received
            self._save(trainer)
            # Lightning logs a step after this hook: the checkpoint has it, and no other start will make it.
            log_finished_step(trainer)
            self._stop(trainer, received)
        self._step = trainer.global_step

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        # Before training starts nothing is listened to.
        if self._watch is None or trainer.sanity_checking:
            return
        self._agreed = self._agreed or self._vote_of_last_batch(trainer)
        if self._agreed and self._at_step_end:
            received = self._received
            with as_before_validation(trainer):
                self._save(trainer)
            self._stop(trainer, received)

    def _vote_of_last_batch(self, trainer: Trainer) -> int:
        """What any rank had been told by the end of the last batch; if nothing, starts the next vote."""
        if trainer.world_size == 1:
            return self._wish()
        assert self._vote is not None
        return self._vote.cast(self._wish())

    def _save(self, trainer: Trainer) -> None:
        checkpoints = [c for c in trainer.callbacks if isinstance(c, Checkpoints)]  # type: ignore[attr-defined]
        for callback in checkpoints:
            callback.save(trainer)
            callback.wait()

    def _stop(self, trainer: Trainer, received: signal.Signals | None) -> None:
        """Says why, by the signal that came first: more may have come while it saved."""
        agreed = self._agreed
        if trainer.is_global_zero and agreed == _PREEMPT:
            content = {"step": trainer.global_step, "signal": received.name if received else None}
            (Path(trainer.default_root_dir) / PREEMPTED).write_text(json.dumps(content))
        hint = "start the same command again to go on"
        if agreed == _INTERRUPT:
            raise Interrupted(f"stopped by Ctrl-C at step {trainer.global_step}, with everything saved", hint=hint)
        cause = received.name if received else "a signal to another rank"
        raise Preempted(f"stopped by {cause} at step {trainer.global_step}, with everything saved", hint=hint)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._vote is not None:
            self._vote.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop_watch()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop_watch()

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None


def _note_interrupt(trainer: Trainer) -> None:
    """What is quickly done when the process is about to end, in a thread of its own."""
    # They would wait in a collective for this one.
    for child in getattr(trainer.strategy.launcher, "procs", []):
        child.kill()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Restarts):
            callback.note_interrupt(trainer)


def _finished(trainer: Trainer) -> bool:
    """Whether this was the run's last step: it then ends by itself."""
    steps: int = trainer.max_steps
    return 0 < steps <= trainer.global_step
