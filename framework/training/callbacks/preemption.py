"""A signal to stop becomes a checkpoint and an exit code that asks to be started again."""

import json
import signal
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from framework.core.compat.lightning_compat import leave_signals_alone, log_finished_step
from framework.core.errors import Preempted
from framework.tracking.run_folder import PREEMPTED
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.order import put_last
from framework.training.shapes import Flag

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption(Callback):
    """On SIGTERM or SIGUSR1 on any rank: all ranks finish the step, save together and end with exit code 75.

    The handler sets a flag, no more; Lightning's, which save or broadcast inside the handler, are replaced and put back
    by Lightning's own clean-up. The ranks agree by a maximum over their flags in a CPU group: it starts at the end of a
    batch and is looked at after the next, so that no step waits for it, and the stop comes one batch later. A signal
    before training starts has its usual effect; there is nothing to save yet.

    Raises:
        Preempted: after the checkpoint is complete.
    """

    def __init__(self) -> None:
        self._received: str | None = None
        self._group: dist.ProcessGroup | None = None
        self._vote: tuple[dist.Work, Flag] | None = None
        self._agreed = False
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            # What the others note at the end of a batch belongs in the checkpoint.
            put_last(trainer, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._received, self._vote, self._agreed, self._step = None, None, False, trainer.global_step
        if trainer.world_size > 1:
            group = dist.new_group(backend="gloo")
            assert not isinstance(group, int), "every rank is a member"
            self._group = group
            # The vote replaces Lightning's own broadcast.
            leave_signals_alone(trainer)
        for number in SIGNALS:
            signal.signal(number, self._note)
        if trainer.is_global_zero:
            (Path(trainer.default_root_dir) / PREEMPTED).unlink(missing_ok=True)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = self._received or signal.Signals(number).name

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        self._agreed = self._agreed or self._vote_of_last_batch(trainer)
        # Within an accumulation the gradients would be lost.
        if self._agreed and trainer.global_step != self._step and not _finished(trainer):
            self._leave(trainer)
        self._step = trainer.global_step

    def _vote_of_last_batch(self, trainer: Trainer) -> bool:
        """Whether any rank had a signal by the end of the last batch; if none had, starts the next vote."""
        if trainer.world_size == 1:
            return self._received is not None
        if self._vote is not None:
            work, flag = self._vote
            work.wait()
            self._vote = None
            if flag.item():
                return True
        flag = torch.tensor([int(self._received is not None)])
        work = dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._vote = work, flag
        return False

    def _leave(self, trainer: Trainer) -> None:
        # More signals may come while it saves.
        received = self._received
        checkpoints = [c for c in trainer.callbacks if isinstance(c, Checkpoints)]  # type: ignore[attr-defined]
        for callback in checkpoints:
            callback.save(trainer)
            callback.wait()
        cause = received or "a signal to another rank"
        if trainer.is_global_zero:
            content = {"step": trainer.global_step, "signal": received}
            (Path(trainer.default_root_dir) / PREEMPTED).write_text(json.dumps(content))
        # Lightning logs a step after this hook: the checkpoint has it, and no other start will make it.
        log_finished_step(trainer)
        raise Preempted(
            f"stopped by {cause} at step {trainer.global_step}, with everything saved",
            hint="start the same command again to go on",
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._vote is not None:
            self._vote[0].wait()
            self._vote = None


def _finished(trainer: Trainer) -> bool:
    """Whether this was the run's last step: it then ends by itself."""
    steps: int = trainer.max_steps
    return 0 < steps <= trainer.global_step
