"""Global batches over processes and accumulation: who reads which samples of the stream, and when.

    global batch = micro-batch x processes x accumulated micro-batches

Step g of training takes global batch g. Of its samples, micro-step a of process r takes those from
(a x processes + r) x micro-batch on: so whatever the three factors are, step g is made of the same samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from torch.utils.data import Sampler

from framework.core.errors import ConfigError
from framework.data.sampling.mixing import LookAhead
from framework.data.sampling.order import Position, Samples, SampleStream, check_size


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How a global batch is made.

    Attributes:
        micro_batch: samples of one forward pass of one process.
        num_ranks: processes that read different data.
        rank: this process, in [0, num_ranks).
        accumulation: micro-batches of one process for one optimizer step.
    """

    micro_batch: int
    num_ranks: int = 1
    rank: int = 0
    accumulation: int = 1

    @property
    def micro_step(self) -> int:
        """Samples of one forward pass of all processes."""
        return self.micro_batch * self.num_ranks

    @property
    def global_batch(self) -> int:
        """Samples of one optimizer step."""
        return self.micro_step * self.accumulation


def needed_accumulation(global_batch: int, *, micro_batch: int, num_ranks: int, given: int) -> int:
    """Micro-batches to accumulate for a global batch.

    Args:
        global_batch: the samples that are wanted for one optimizer step.
        micro_batch: samples of one forward pass of one process.
        num_ranks: number of processes.
        given: what the trainer accumulates; 1, its default, is replaced by what is needed.

    Raises:
        ConfigError: the global batch does not divide, with the nearest that do, or `given` is another number.
    """
    together = micro_batch * num_ranks
    needed, rest = divmod(global_batch, together)
    if rest or needed == 0:
        nearest = [str(number * together) for number in (needed, needed + 1) if number]
        problem = f"global_batch {global_batch} is not a multiple of batch_size {micro_batch} x {num_ranks} process(es)"
        raise ConfigError(problem, hint=f"use {' or '.join(nearest)}, or another data.batch_size")
    if given not in (1, needed):
        problem = (
            f"global_batch {global_batch} is not batch_size {micro_batch} x {num_ranks} process(es) "
            f"x accumulate_grad_batches {given}"
        )
        hint = f"leave trainer.accumulate_grad_batches out ({needed} follows), or use {together * given}"
        raise ConfigError(problem, hint=hint)
    return needed


class MicroBatches(Sampler[Samples]):
    """Yields this process's micro-batches, from wherever training stands.

    `position` is asked at the start of every iteration. An iteration has the length of an epoch wherever it starts,
    since Lightning counts a resumed epoch's batches from its beginning and stops by that count.

    Args:
        stream: the samples.
        plan: how they are shared.
        position: gives where training stands.
        ahead: is told of the samples after those that are given out, to fetch them.

    Raises:
        ConfigError: fewer samples than one global batch.
    """

    def __init__(
        self,
        stream: SampleStream,
        plan: BatchPlan,
        position: Callable[[], Position] = Position,
        *,
        ahead: LookAhead | None = None,
    ) -> None:
        check_size(stream, plan.global_batch)
        self.ahead = ahead
        self.stream = stream
        self.plan = plan
        self.position = position

    def __len__(self) -> int:
        return self.stream.usable(0, self.plan.global_batch) // self.plan.micro_step

    def __iter__(self) -> Iterator[Samples]:
        return islice(self.batches(self.position()), len(self))

    def batches(self, position: Position) -> Iterator[Samples]:
        """This process's micro-batches of everything after `position`, without an end."""
        plan, size = self.plan, self.plan.global_batch
        while True:
            if self.stream.usable(position.samples, size) == 0:  # Only where the global batch was another before.
                position = Position(epoch=position.epoch + 1, consumed=position.consumed)
            if self.ahead is not None:
                self.ahead.at(self.stream, position, size)
            for step in range(plan.accumulation):
                # Its own samples alone: with thousands of ranks a global batch is long.
                earlier = (step * plan.num_ranks + plan.rank) * plan.micro_batch
                yield self.stream.take(position, plan.micro_batch, skip=earlier)
            position = self.stream.advance(position, size, size)
