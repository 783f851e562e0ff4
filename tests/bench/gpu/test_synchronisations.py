"""What makes the host wait is counted; copies that are not waited for are not."""

import torch

from framework.bench.gpu.synchronisations import DispatchedWaits


def waits_of(work) -> int:
    with DispatchedWaits() as mode:
        work()
    return mode.waits.total()


def test_copies_to_another_device():
    here, there = torch.ones(2), torch.empty(2, device="meta")
    assert waits_of(lambda: here.to("meta")) == 1
    assert waits_of(lambda: here.to("meta", non_blocking=True)) == 0
    assert waits_of(lambda: here.to(torch.float64)) == 0
    assert waits_of(lambda: there.copy_(here)) == 1
    assert waits_of(lambda: there.copy_(here, non_blocking=True)) == 0
    assert waits_of(lambda: here.clone().copy_(here)) == 0


def test_numbers_of_the_host_on_the_device():
    # On the meta device nothing is copied; on others a mode sees the result of the copy alone.
    lifted, here = torch.ones((), device="meta"), torch.ones(())
    assert waits_of(lambda: torch.ops.aten.lift_fresh(lifted)) == 1
    assert waits_of(lambda: torch.ops.aten.lift_fresh(here)) == 0
    assert waits_of(lambda: torch.full((), 1.0, device="meta")) == 0
    assert waits_of(lambda: torch.tensor(1.0)) == 0


def test_what_is_read_on_the_host_is_there():
    assert waits_of(lambda: torch.ones(()).item()) == 0


def test_backward_passes_are_seen():
    class Waits(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            gradient.to("meta")
            return gradient

    assert waits_of(lambda: Waits.apply(torch.ones(2, requires_grad=True)).sum().backward()) == 1
