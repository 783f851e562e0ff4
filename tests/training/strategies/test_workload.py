"""Bytes of a ring, by hand."""

from dataclasses import replace

import torch

from framework.training.strategies.workload import Workload, ring_bytes


def test_a_ring_sends_all_but_its_own_part():
    assert ring_bytes(8, 4) == 8 * 4 * 3 / 4
    assert ring_bytes(8, 2, 2) == 8
    assert ring_bytes(8, 1) == 0


def test_values_of_all_parameters():
    shapes = {"weight": torch.Size([2, 3]), "bias": torch.Size([2])}
    workload = Workload(
        shapes=shapes,
        largest_unit=8,
        largest_trained_unit=8,
        num_processes=2,
        accumulation=1,
        forward_values=lambda: 8,
        backward_values=lambda: 8,
    )
    assert (workload.num_values, workload.num_trained) == (8, 8)
    part = replace(workload, frozen={"weight"})
    assert (part.num_values, part.num_trained, part.trained_shapes) == (8, 2, {"bias": torch.Size([2])})
