"""What the data asks of the trainer: how it makes its batches, and how many it has finished.

Lightning counts the micro-batches of one process. A checkpoint of other processes or another accumulation has counted
other ones, so on a resume the counters are set to what they would be had the run always been as it is now.
"""

from dataclasses import dataclass

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from framework.core.compat.lightning_compat import ProcessedTracker, replaces_samplers
from framework.core.errors import ConfigError
from framework.core.serialization import from_json, to_json
from framework.data.sampling.batching import BatchPlan, needed_accumulation
from framework.data.sampling.order import Position, SampleStream


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Counts on from a position.

    Attributes:
        trainer: whose batches count; None stays at `start`.
        start: where training stood when the trainer had counted `batches`.
        batches: the trainer's micro-batches at that point.
    """

    trainer: Trainer | None
    start: Position
    batches: int

    def position(self, stream: SampleStream, plan: BatchPlan) -> Position:
        """Samples of the finished optimizer steps.

        Micro-batches of a step that is not finished do not count: a checkpoint has no accumulated gradients, so a
        resumed run makes the whole step again.
        """
        finished = (finished_batches(self.trainer) - self.batches) * plan.micro_step
        finished -= finished % plan.global_batch
        return stream.advance(self.start, finished, plan.global_batch)


def plan_for(trainer: Trainer | None, *, batch_size: int, global_batch: int | None) -> BatchPlan:
    """How global batches are made on the trainer's processes; sets its accumulation where `global_batch` asks.

    Args:
        trainer: with its processes and its accumulation; None is one process.
        batch_size: samples of a micro-batch.
        global_batch: samples of an optimizer step over all processes; None leaves the trainer's accumulation.

    Raises:
        ConfigError: a global batch that does not divide, or a trainer with a sampler or an accumulation of its own.
    """
    if trainer is None:
        return BatchPlan(micro_batch=batch_size)
    # Processes that read different data: with tensor parallelism fewer than all.
    shares: dict[str, int] = getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {}
    num_ranks = shares.get("num_replicas", 1)
    if num_ranks > 1 and replaces_samplers(trainer):
        raise ConfigError("the trainer has a sampler of its own", hint="set trainer.use_distributed_sampler to false")
    if any(isinstance(each, GradientAccumulationScheduler) for each in trainer.callbacks):  # type: ignore[attr-defined]
        raise ConfigError("the accumulation changes during training", hint="leave GradientAccumulationScheduler out")
    if global_batch is not None:
        trainer.accumulate_grad_batches = needed_accumulation(
            global_batch, micro_batch=batch_size, num_ranks=num_ranks, given=trainer.accumulate_grad_batches
        )
    return BatchPlan(
        micro_batch=batch_size,
        num_ranks=num_ranks,
        rank=shares.get("rank", 0),
        accumulation=trainer.accumulate_grad_batches,
    )


def finished_batches(trainer: Trainer | None) -> int:
    """Micro-batches that the trainer has trained on: `processed` counts one before its end hooks."""
    if trainer is None:
        return 0
    total = trainer.fit_loop.epoch_loop.batch_progress.total
    assert isinstance(total, ProcessedTracker)
    return total.processed


def to_state(position: Position) -> dict[str, object]:
    """The position as a checkpoint's plain numbers."""
    return to_json(position)


def from_state(state: dict[str, object], stream: SampleStream, plan: BatchPlan) -> Position:
    """Inverse of `to_state`; in a checkpoint from before there were epochs in it they follow from the batch size.

    Args:
        state: of a checkpoint.
        stream: the order of the samples.
        plan: how batches are made now.
    """
    position = from_json(Position, state, allow_missing=True, ignore_unknown=True)
    if "epoch" not in state:
        return stream.advance(Position(), position.consumed, plan.global_batch)
    return position


def recount(trainer: Trainer, position: Position, stream: SampleStream, plan: BatchPlan) -> None:
    """Sets the counters that the trainer has taken from a checkpoint to `position`, in micro-batches of this run.

    Called after the trainer has restored its loops and before it makes the epoch's iterator.

    Args:
        trainer: whose counters are set.
        position: where training stands.
        stream: the order of the samples.
        plan: how batches are made now.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    total, current = progress.total, progress.current
    assert isinstance(total, ProcessedTracker)
    assert isinstance(current, ProcessedTracker)
    size = plan.global_batch
    if _is_limited(trainer):
        # An epoch of the trainer is a part of one of the samples: only the step must be a whole one.
        ready = current.ready - current.ready % plan.accumulation
    elif position.samples == 0:
        # The same place may be the end of an epoch that is not closed yet, or the start of the next one.
        if trainer.limit_val_batches == 0 and current.completed == current.processed:
            # Without a validation to come the trainer would train one more batch as the last one of the old epoch.
            progress.is_last_batch = False
        ready = stream.usable(0, size) // plan.micro_step if progress.is_last_batch else 0
    else:
        ready = (stream.usable(0, size) - stream.usable(position.samples, size)) // plan.micro_step
    _set(current, max(0, ready))
    _set(total, position.consumed // plan.micro_step)


def check_limit(trainer: Trainer, num_batches: int, accumulation: int) -> None:
    """Refuses shortened epochs that end in the middle of a step.

    Args:
        trainer: with its `limit_train_batches`.
        num_batches: micro-batches of a whole epoch.
        accumulation: micro-batches of an optimizer step.

    Raises:
        ConfigError: `limit_train_batches` leaves micro-batches over.
    """
    if not _is_limited(trainer) or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    used = used_batches(trainer, num_batches)
    if used % accumulation:
        problem = f"limit_train_batches {trainer.limit_train_batches} gives epochs of {used} batches"
        problem += f", of which {accumulation} make a step"
        raise ConfigError(problem, hint=f"use {used - used % accumulation or accumulation}")


def used_batches(trainer: Trainer, num_batches: int) -> int:
    """Micro-batches of an epoch of the trainer, of as many as a whole epoch of the samples has."""
    limit = trainer.limit_train_batches
    return min(limit if isinstance(limit, int) else int(limit * num_batches), num_batches)


def _is_limited(trainer: Trainer) -> bool:
    """Whether an epoch of the trainer is a part of one of the samples: 1 is a batch, 1.0 all of them."""
    limit = trainer.limit_train_batches
    return isinstance(limit, int) or limit < 1.0


def _set(tracker: ProcessedTracker, count: int) -> None:
    """All of a tracker's counts, keeping whether the last batch's end hooks are still due."""
    due = tracker.processed - tracker.completed
    tracker.ready = tracker.started = tracker.processed = count
    tracker.completed = count - due
