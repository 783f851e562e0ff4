"""What any rank has been told, agreed on by all ranks without a wait: every rank learns of it at the same batch."""

from typing import Protocol, runtime_checkable

import torch
import torch.distributed as dist

from framework.training.shapes import Flag


@runtime_checkable
class Pending(Protocol):
    """A reduction that goes on by itself."""

    def wait(self) -> object:
        """Returns when the flag has its result."""
        ...


@runtime_checkable
class VotingGroup(Protocol):
    """Ranks that reduce a flag together, such as a process group of gloo."""

    def allreduce(self, tensors: list[Flag], opts: dist.AllreduceOptions) -> Pending:
        """Starts a reduction of each tensor, in place.

        Args:
            tensors: of this rank.
            opts: the reduction.
        """
        ...


class StopVote:
    """A vote at the end of every batch, whose result is read at the end of the next: the largest flag counts.

    Args:
        group: of all ranks, each of which casts in every batch.
    """

    def __init__(self, group: VotingGroup) -> None:
        self._group = group
        self._last: tuple[Pending, Flag] | None = None

    def cast(self, told: int) -> int:
        """What any rank had been told by the end of the last batch; where that is nothing (0), starts the next vote.

        Args:
            told: what this rank has been told; 0 for nothing.
        """
        if agreed := self.finish():
            return agreed
        flag, options = torch.tensor([told]), dist.AllreduceOptions()
        options.reduceOp = dist.ReduceOp(dist.ReduceOp.MAX)
        self._last = self._group.allreduce([flag], options), flag
        return 0

    def finish(self) -> int:
        """Waits for the vote that is under way, if there is one, and returns its result; 0 without one."""
        if self._last is None:
            return 0
        pending, flag = self._last
        pending.wait()
        self._last = None
        return int(flag.item())
