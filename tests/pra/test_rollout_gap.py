"""The rollout gap: no gap between equals, and each side by a slow reference."""

from typing import Any

import pytest
import torch

from framework.core.random.seeding import seed_of
from framework.pra.loss import ObjectiveConfig, draw_training_noise, training_losses
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.patches import patchify
from framework.pra.noise import SampleNoise
from framework.pra.rollout_gap import RolloutGap, measure_rollout_gap
from framework.testing.models import tiny_batch, tiny_generator, tiny_model

OBJECTIVE = ObjectiveConfig(class_dropout=0.9)


def measure(model: ImageGenerator, *, same: bool = False, **options: Any) -> RolloutGap:
    real, rollouts = tiny_batch(model.config, 6), tiny_batch(model.config, 6, seed=0 if same else 1)
    labels = options.pop("rollout_labels", rollouts.labels)
    return measure_rollout_gap(model, real.images, real.labels, rollouts.images, labels, OBJECTIVE, **options)


def test_ratio():
    assert RolloutGap(on_training_inputs=2.0, on_rollouts=3.0, per_token=[]).ratio == 1.5


@pytest.mark.parametrize("variant", ["teacher_forced", "x_prediction", "low_dim", "diffusion"])
def test_no_gap_where_rollouts_are_the_clean_training_inputs(variant: str):
    gap = measure(tiny_generator(variant=variant), same=True)
    assert gap.ratio == pytest.approx(1)
    assert gap.per_token == pytest.approx([1] * 4)


@pytest.mark.parametrize("variant", ["noisy_inputs", "pra"])
def test_the_training_side_has_the_inputs_of_training(variant: str):
    gap = measure(tiny_model(variant=variant), same=True)
    assert gap.ratio != pytest.approx(1, abs=1e-3)
    # The first token's state has seen no input.
    assert gap.per_token[0] == pytest.approx(1)
    assert all(abs(growth - 1) > 1e-4 for growth in gap.per_token[1:])


@pytest.mark.parametrize("variant", ["teacher_forced", "pra"])
def test_both_sides_by_reference(variant: str):
    model = tiny_model(variant=variant)
    real, rollouts = tiny_batch(model.config, 6), tiny_batch(model.config, 6, seed=1)
    never = ObjectiveConfig(class_dropout=0.0)
    noise = draw_training_noise(
        SampleNoise([seed_of("rollout gap", 3, i) for i in range(6)], "cpu"), model.config, never
    )
    gap = measure(model, seed=3)
    training = training_losses(model, real.images, real.labels, never, noise).flow
    assert gap.on_training_inputs == pytest.approx(training.item(), rel=1e-5)
    tokens = patchify(rollouts.images, 2)
    targets = tokens if model.encoder is None else model.encode(tokens).sample(noise.posterior)
    hidden, errors = model.transformer(tokens, rollouts.labels), []
    for r in range(never.head_repeats):
        time, start = noise.time[:, :, r], noise.head[:, :, r]
        point = (1 - time)[..., None] * start + time[..., None] * targets
        errors.append((model.head(point, time, hidden) - (targets - start)).square().mean())
    assert gap.on_rollouts == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)


def test_per_token_is_the_ratio_at_each_position():
    gap = measure(tiny_model(variant="teacher_forced"))
    assert len(gap.per_token) == 4
    assert len(set(gap.per_token)) == 4
    assert min(gap.per_token) < gap.ratio < max(gap.per_token)


def test_labels_are_used_and_none_is_dropped():
    model = tiny_model(variant="teacher_forced")
    others = (tiny_batch(model.config, 6, seed=1).labels + 1) % 3
    assert measure(model, rollout_labels=others).on_rollouts != pytest.approx(measure(model).on_rollouts, rel=1e-4)


def test_the_batch_size_does_not_matter_and_the_seed_does():
    model = tiny_model()
    whole = measure(model)
    assert measure(model, batch_size=4).per_token == pytest.approx(whole.per_token, rel=1e-4)
    assert measure(model, batch_size=4).ratio == pytest.approx(whole.ratio, rel=1e-4)
    assert measure(model, seed=1).on_rollouts != pytest.approx(whole.on_rollouts, rel=1e-3)


def test_the_gap_of_diffusion_is_that_of_its_denoising_losses():
    model = tiny_generator(variant="diffusion")
    real, rollouts = tiny_batch(model.config, 6), tiny_batch(model.config, 6, seed=1)
    never = ObjectiveConfig(class_dropout=0.0)
    noise = draw_training_noise(
        SampleNoise([seed_of("rollout gap", 3, i) for i in range(6)], "cpu"), model.config, never
    )
    gap = measure(model, seed=3)
    sides = [training_losses(model, each.images, each.labels, never, noise).flow.item() for each in (real, rollouts)]
    assert [gap.on_training_inputs, gap.on_rollouts] == pytest.approx(sides, rel=1e-5)
