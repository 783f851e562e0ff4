"""Jumps: what a mean velocity is learned from, against a Gaussian whose flow is known, and where gradients go."""

from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from framework.core.errors import ConfigError
from framework.pra.loss import ObjectiveConfig, draw_training_noise, training_losses
from framework.pra.network.head import DiffusionHead, interpolate
from framework.pra.network.jumps import (
    SHORT,
    JumpNoise,
    jump_errors,
    jump_noise,
    midpoint_step,
    two_half_jumps,
)
from framework.pra.noise import SampleNoise
from framework.testing.models import tiny_batch, tiny_config, tiny_model

MEAN, STD = 1.5, 0.5


def moved(x: Tensor, t: Tensor, end: Tensor) -> Tensor:
    """Where the flow towards N(MEAN, STD^2) takes x from t until `end`: it keeps the place in units of deviations."""

    def deviation(at: Tensor) -> Tensor:
        return ((1 - at) ** 2 + (at * STD) ** 2).sqrt()

    return end * MEAN + deviation(end) / deviation(t) * (x - t * MEAN)


def true_mean_velocity(x: Tensor, time: Tensor, hidden: Tensor, jump: Tensor) -> Tensor:
    t, d = time[..., None], jump[..., None]
    return (moved(x, t, t + d) - x) / d


def true_velocity(x: Tensor, time: Tensor) -> Tensor:
    t = time[..., None]
    variance = (1 - t) ** 2 + (t * STD) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def known_flow(x: Tensor, time: Tensor, hidden: Tensor, jump: Tensor | None = None) -> Tensor:
    return true_velocity(x, time) if jump is None else true_mean_velocity(x, time, hidden, jump)


def gaussian_jumps(longest: float = 0.9) -> tuple[Mock, Tensor, JumpNoise]:
    """A head that knows the flow, points on it, and jumps from them; in double precision."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(3, 4, 5, generator=generator).double() * 0.6
    length = (1 - start) * longest * (0.2 + 0.8 * torch.rand(3, 4, 5, generator=generator))
    point = torch.randn(3, 4, 5, 2, generator=generator).double()
    head = Mock(spec=DiffusionHead, side_effect=known_flow)
    return head, point, JumpNoise(start=start, length=length, head=point)


HIDDEN = torch.zeros(3, 4, 1, 6)
"""Of which that flow knows nothing."""


def test_two_half_jumps_make_the_whole_one():
    head, point, jumps = gaussian_jumps()
    made = two_half_jumps(head, point, jumps, HIDDEN)
    torch.testing.assert_close(made, true_mean_velocity(point, jumps.start, torch.zeros(1), jumps.length))


def test_the_velocity_at_the_middle_makes_a_short_jump():
    # Of second order or better: at a third of the length the error is a ninth at most.
    def error(longest: float) -> float:
        head, point, jumps = gaussian_jumps(longest)
        expected = true_mean_velocity(point, jumps.start, torch.zeros(1), jumps.length)
        return (midpoint_step(head, point, jumps, HIDDEN) - expected).abs().max().item()

    assert error(SHORT) < 0.01
    assert error(SHORT / 3) < error(SHORT) / 9


def test_jumps_lie_between_two_uniform_times():
    noise = SampleNoise(range(200), "cpu")
    jumps = jump_noise(*noise.uniform_and_normal(2 * 4 * 5, 4 * 5 * 3), 4)
    assert jumps.start.shape == jumps.length.shape == (200, 4, 5)
    assert jumps.head.shape == (200, 4, 5, 3)
    assert (jumps.start >= 0).all()
    assert (jumps.start + jumps.length <= 1).all()
    # The smaller and the difference of two uniform numbers: 1/3 each in the mean.
    assert jumps.start.mean().item() == pytest.approx(1 / 3, abs=0.02)
    assert jumps.length.mean().item() == pytest.approx(1 / 3, abs=0.02)


def test_errors_by_hand_and_their_gradient():
    model = tiny_model(head_jumps=True)
    jumps = draw_training_noise(SampleNoise(range(8), "cpu"), model.config, ObjectiveConfig(jump_repeats=3)).jumps
    assert jumps is not None
    targets, hidden = torch.randn(8, 4, 3, requires_grad=True), torch.randn(8, 4, 16, requires_grad=True)
    errors = jump_errors(model.head, targets, hidden, jumps)
    target = targets.detach()[:, :, None]
    context = hidden.detach()[:, :, None]
    point = interpolate(jumps.head, target, jumps.start)
    with torch.no_grad():
        wanted = two_half_jumps(model.head, point, jumps, context)
        short = jumps.length < SHORT
        wanted[short] = midpoint_step(model.head, point, jumps, context)[short]
        said = model.head(point, jumps.start, context, jumps.length)
    assert 0 < short.sum() < short.numel()
    torch.testing.assert_close(errors, (said - wanted).square().mean((-1, -2)))
    errors.sum().backward()
    assert targets.grad is None
    assert hidden.grad is not None
    assert hidden.grad.any()


def test_every_weight_of_the_head_learns_of_the_jumps_alone():
    model, objective = tiny_model(head_jumps=True), ObjectiveConfig()
    batch, noise = tiny_batch(model.config), draw_training_noise(SampleNoise(range(4), "cpu"), model.config, objective)
    losses = training_losses(model, batch.images, batch.labels, objective, noise)
    losses.jump.backward()
    encoder = model.encoder
    assert encoder is not None
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.head.parameters())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_a_head_without_jumps_draws_the_same_noise():
    objective = ObjectiveConfig()
    plain, jumping = (
        draw_training_noise(SampleNoise(range(3), "cpu"), tiny_config(head_jumps=jumps), objective)
        for jumps in (False, True)
    )
    assert plain.jumps is None
    assert torch.equal(plain.drop_class, jumping.drop_class)


def test_an_objective_without_jumps_for_a_head_that_jumps():
    with pytest.raises(ConfigError, match="jump_repeats 0"):
        ObjectiveConfig(jump_repeats=0)
