"""Jumps: both ways to learn a mean velocity against a Gaussian whose flow is known, and where gradients go."""

from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from framework.core.errors import ConfigError
from framework.pra.loss import ObjectiveConfig, draw_training_noise, training_losses
from framework.pra.network.head import DiffusionHead, interpolate
from framework.pra.network.jumps import JumpLoss, JumpNoise, jump_errors, jump_noise, mean_flow_target, two_half_jumps
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


def gaussian_jumps() -> tuple[Mock, Tensor, JumpNoise]:
    """A head that knows the flow, points on it, and jumps from them; in double precision."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(3, 4, 5, generator=generator).double() * 0.6
    length = (1 - start) * (0.2 + 0.7 * torch.rand(3, 4, 5, generator=generator))
    point = torch.randn(3, 4, 5, 2, generator=generator).double()
    return (
        Mock(spec=DiffusionHead, side_effect=true_mean_velocity),
        point,
        JumpNoise(start=start, length=length, head=point),
    )


def test_two_half_jumps_make_the_whole_one():
    head, point, jumps = gaussian_jumps()
    hidden = torch.zeros(3, 4, 1, 6)
    made = two_half_jumps(head, point, jumps, hidden)
    torch.testing.assert_close(made, true_mean_velocity(point, jumps.start, hidden, jumps.length))


def test_the_derivative_along_the_path_makes_the_mean_velocity():
    head, point, jumps = gaussian_jumps()
    hidden = torch.zeros(3, 4, 1, 6)
    made = mean_flow_target(head, point, true_velocity(point, jumps.start), jumps, hidden)
    expected = true_mean_velocity(point, jumps.start, hidden, jumps.length)
    # What is left is the error of the differences, of the order of their square.
    torch.testing.assert_close(made, expected, rtol=0.0, atol=1e-4)


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


@pytest.mark.parametrize("loss", ["shortcut", "mean_flow"])
def test_errors_by_hand_and_their_gradient(loss: JumpLoss):
    model = tiny_model(head_jumps=True)
    jumps = draw_training_noise(SampleNoise(range(2), "cpu"), model.config, ObjectiveConfig(jump_repeats=3)).jumps
    assert jumps is not None
    targets = torch.randn(2, 4, 3, requires_grad=True)
    hidden = torch.randn(2, 4, 16, requires_grad=True)
    errors = jump_errors(model.head, targets, hidden, jumps, loss)
    target, context = targets.detach()[:, :, None], hidden.detach()[:, :, None]
    point = interpolate(jumps.head, target, jumps.start)
    with torch.no_grad():
        wanted = (
            two_half_jumps(model.head, point, jumps, context)
            if loss == "shortcut"
            else mean_flow_target(model.head, point, target - jumps.head, jumps, context)
        )
        said = model.head(point, jumps.start, context, jumps.length)
    torch.testing.assert_close(errors, (said - wanted).square().mean((-1, -2)))
    errors.sum().backward()
    assert targets.grad is None
    assert hidden.grad is not None
    assert hidden.grad.any()


@pytest.mark.parametrize("loss", ["shortcut", "mean_flow"])
def test_every_weight_of_the_head_learns_of_the_jumps_alone(loss: JumpLoss):
    model, objective = tiny_model(head_jumps=True), ObjectiveConfig(jump_loss=loss)
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
