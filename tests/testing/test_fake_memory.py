"""Memory by shapes: what lives at once, and no more than that."""

from collections.abc import Callable

import torch

from framework.testing.fake_memory import fake_peak

MIB = 2**20


def test_what_lives_at_once_is_counted():
    def prepare() -> Callable[[], object]:
        weight = torch.ones(512, 512)

        def compute() -> object:
            first = weight + 1  # 1 MiB
            view = (first.T[:5], weight.T)  # no memory of their own
            second = first * 2  # 1 MiB
            del first, view
            third = torch.cat([second, second])  # 2 MiB, the first one is gone
            return third.sum()

        return compute

    assert fake_peak(prepare) == 3 * MIB + 4  # the sum


def test_what_is_kept_for_the_way_back_is_counted():
    def compute() -> object:
        leaf = torch.ones(512, 512, requires_grad=True)
        squared = (leaf.exp() + 1).square()
        return torch.autograd.grad(squared.sum(), leaf)

    # leaf, exp (kept), exp + 1 (kept), its square; back: a gradient of the square, then one of each.
    assert 4 * MIB <= fake_peak(lambda: compute) < 8 * MIB


def test_nothing_is_computed():
    # Eight terabytes.
    assert fake_peak(lambda: lambda: torch.ones(2**20, 2**20, dtype=torch.float64) + 1) == 2 * 2**43
