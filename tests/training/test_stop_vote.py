"""All ranks learn at the same batch that one was told to stop, and nobody waits for the vote of the present batch."""

import pytest
import torch.distributed as dist
from torch import Tensor

from framework.bench.scale import measure_vote
from framework.training.stop_vote import StopVote


class Pending:
    """A reduction that others have a part in, read when it is waited for."""

    def __init__(self, flags: list[Tensor]) -> None:
        self.flags, self.waited = flags, False

    def wait(self) -> None:
        self.waited = True
        for flag in self.flags:
            flag.fill_(max(int(each) for each in self.flags))


class Together:
    """Two ranks; the second casts what it is given."""

    def __init__(self) -> None:
        self.pending: list[Pending] = []
        self.others = 0

    def allreduce(self, tensors: list[Tensor], opts: dist.AllreduceOptions) -> Pending:
        assert opts.reduceOp == dist.ReduceOp.MAX
        self.pending.append(Pending([*tensors, tensors[0].clone().fill_(self.others)]))
        return self.pending[-1]


def test_a_vote_is_read_one_batch_later():
    group = Together()
    vote = StopVote(group)
    assert vote.cast(0) == 0
    group.others = 2
    assert vote.cast(1) == 0
    assert [each.waited for each in group.pending] == [True, False]
    # The largest counts, and no further vote begins.
    assert vote.cast(0) == 2
    assert len(group.pending) == 2


def test_what_is_under_way_is_finished_once():
    group = Together()
    vote = StopVote(group)
    assert vote.finish() == 0
    vote.cast(1)
    assert (vote.finish(), vote.finish()) == (1, 0)


@pytest.mark.slow
def test_many_ranks_stop_together_whenever_the_signal_comes():
    for num_ranks, over in ((5, "gloo"), (100, "store")):
        found = measure_vote(num_ranks, over, trials=10)
        assert found.divided == 0
        # In the batch after it, or a further one for a rank that had cast already.
        assert found.batches_later == (1, 2)
