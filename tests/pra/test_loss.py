"""The training objective: parallel rollouts against sequential ones, where gradients go, and whose noise is whose."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from framework.core.errors import ConfigError
from framework.pra.loss import (
    Losses,
    ObjectiveConfig,
    TrainingNoise,
    draw_training_noise,
    flow_errors,
    generation_pass,
    parallel_rollout,
    training_losses,
)
from framework.pra.network.build import build_generator
from framework.pra.network.codec import to_sphere
from framework.pra.network.config import PRAConfig
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.head import LAST_TIME
from framework.pra.network.model import PRA
from framework.pra.network.patches import patchify, unpatchify
from framework.pra.noise import SampleNoise
from framework.testing.models import tiny_batch, tiny_config, tiny_diffusion, tiny_generator, tiny_model

PIXEL_VARIANTS = ["teacher_forced", "x_prediction", "noisy_inputs"]
ALL_VARIANTS = [*PIXEL_VARIANTS, "low_dim", "pra", "diffusion"]
STATE_VARIANTS = ["low_dim", "pra"]
PLAIN = ObjectiveConfig(class_dropout=0.0)


def draw(config: PRAConfig, objective: ObjectiveConfig, size: int = 4) -> TrainingNoise:
    return draw_training_noise(SampleNoise(range(size), "cpu"), config, objective)


def losses_of(model: ImageGenerator, objective: ObjectiveConfig = PLAIN, **options: Any) -> Losses:
    batch = tiny_batch(model.config)
    return training_losses(
        model, batch.images, batch.labels, objective, draw(model.config, objective), options.get("perceptual")
    )


def values(losses: Losses) -> dict[str, float]:
    return {field.name: getattr(losses, field.name).item() for field in fields(losses)}


def without_gradient(model: ImageGenerator) -> set[str]:
    """Parameters that got no gradient, or one of zeros."""
    return {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}


def names(model: PRA, *parts: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(parts)}


# Parallel rollouts.


@torch.no_grad()
def sequential_rollout(model: PRA, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel tokens and hidden states when every token is fed back before the next state is decoded."""
    hidden, cache = model.transformer.begin(labels)
    tokens, states_so_far = [], [hidden]
    for i in range(states.shape[1]):
        tokens.append(model.decode(states[:, i : i + 1], states_so_far[-1]))
        if i < states.shape[1] - 1:
            states_so_far.append(model.transformer.step(tokens[-1], cache))
    return torch.cat(tokens, dim=1), torch.cat(states_so_far, dim=1)


@pytest.fixture
def rollout() -> tuple[PRA, Tensor, Tensor, Tensor]:
    """A model of nine tokens in float64, clean tokens, labels and states."""
    model = tiny_model(image_size=6, depth=2).double()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 9, 4, dtype=torch.float64, generator=generator)
    states = torch.randn(2, 9, 3, dtype=torch.float64, generator=generator)
    return model, tokens, torch.tensor([0, 2]), states


def test_as_many_passes_as_tokens_are_a_sequential_rollout(rollout):
    model, tokens, labels, states = rollout
    true_tokens, true_hidden = sequential_rollout(model, states, labels)
    made = parallel_rollout(model, tokens, labels, states, passes=9)
    torch.testing.assert_close(made.inputs, true_tokens, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(made.hidden, true_hidden, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(made.decoded[-1], true_tokens, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_each_pass_makes_one_more_token_that_of_a_sequential_rollout(rollout, passes: int):
    model, tokens, labels, states = rollout
    true_tokens, _ = sequential_rollout(model, states, labels)
    inputs = parallel_rollout(model, tokens, labels, states, passes=passes).inputs
    equal = torch.isclose(inputs, true_tokens, rtol=0, atol=1e-10).all(-1)
    assert equal.tolist() == [[i < passes for i in range(9)]] * 2


def test_one_pass_decodes_in_the_clean_context(rollout):
    model, tokens, labels, states = rollout
    made = parallel_rollout(model, tokens, labels, states, passes=1)
    expected = model.decode(states, model.transformer(tokens, labels))
    assert torch.equal(made.inputs, expected)
    assert torch.equal(made.hidden, model.transformer(expected, labels))
    assert torch.equal(made.decoded[0], expected)
    assert torch.equal(made.decoded[1], model.decode(states, made.hidden))
    assert len(made.decoded) == 2


def test_no_pass_is_teacher_forcing(rollout):
    model, tokens, labels, states = rollout
    made = parallel_rollout(model, tokens, labels, states, passes=0)
    assert made.inputs is tokens
    assert torch.equal(made.hidden, model.transformer(tokens, labels))
    assert len(made.decoded) == 1


# What each variant feeds and aims at.


@pytest.mark.parametrize("latent", ["kl", "sphere"])
def test_pra_feeds_pixels_decoded_from_perturbed_states(latent: str):
    model = tiny_model(latent=latent)
    batch, noise = tiny_batch(model.config), draw(model.config, PLAIN)
    tokens = patchify(batch.images, 2)
    made = generation_pass(model, tokens, batch.labels, PLAIN, noise)
    rollout, targets, kl = made.rollout, made.targets, made.kl
    posterior = model.encode(tokens)
    states = posterior.sample(noise.posterior)
    perturbed = states + noise.perturbation
    if latent == "sphere":
        perturbed = to_sphere(perturbed)
    assert torch.equal(targets, states), "the head's targets are not perturbed"
    expected = model.decode(perturbed, model.transformer(tokens, batch.labels))
    torch.testing.assert_close(rollout.inputs, expected.detach())
    assert torch.equal(kl, posterior.kl().mean())


@pytest.mark.parametrize("variant", [*PIXEL_VARIANTS, "low_dim"])
def test_the_other_variants_feed_pixels(variant: str):
    model = tiny_model(variant=variant)
    batch, noise = tiny_batch(model.config), draw(model.config, PLAIN)
    tokens = patchify(batch.images, 2)
    made = generation_pass(model, tokens, batch.labels, PLAIN, noise)
    rollout, targets, kl = made.rollout, made.targets, made.kl
    expected = tokens + noise.perturbation if variant == "noisy_inputs" else tokens
    assert torch.equal(rollout.inputs, expected)
    assert torch.equal(rollout.hidden, model.transformer(expected, batch.labels))
    assert len(rollout.decoded) == (1 if variant == "low_dim" else 0)
    if variant != "low_dim":
        assert torch.equal(targets, tokens)
        assert kl == 0


def test_rollout_passes_zero_is_low_dim():
    pra, low_dim = tiny_model(), tiny_model(variant="low_dim")
    low_dim.load_state_dict(pra.state_dict())
    objective = replace(PLAIN, rollout_passes=0)
    assert values(losses_of(pra, objective)) == values(losses_of(low_dim, objective))
    assert losses_of(pra).flow != losses_of(low_dim).flow


def test_the_flow_error_by_its_formula():
    model = tiny_model(variant="x_prediction")
    batch, noise = tiny_batch(model.config), draw(model.config, PLAIN)
    targets = patchify(batch.images, 2)
    hidden = model.transformer(targets, batch.labels)
    errors = flow_errors(model, targets, hidden, noise)
    for b in range(4):
        for i in range(4):
            squares = []
            for r in range(PLAIN.head_repeats):
                time, start = noise.time[b, i, r], noise.head[b, i, r]
                point = (1 - time) * start + time * targets[b, i]
                velocity = model.head(point, time, hidden[b, i])
                squares.append((velocity - (targets[b, i] - start)).square())
            torch.testing.assert_close(errors[b, i], torch.stack(squares).mean(), rtol=1e-5, atol=0)


def test_losses_add_up():
    model = tiny_model(head_jumps=True)
    weights = {"flow_weight": 2.0, "reconstruction_weight": 3.0, "kl_weight": 0.5, "perceptual_weight": 7.0}
    losses = losses_of(model, replace(PLAIN, **weights), perceptual=lambda decoded, real: (decoded - real).abs().max())
    assert all(getattr(losses, field.name) > 0 for field in fields(losses))
    expected = 2 * (losses.flow + losses.jump) + 3 * losses.reconstruction + 0.5 * losses.kl + 7 * losses.perceptual
    torch.testing.assert_close(losses.total, expected)


@pytest.mark.parametrize("passes", [0, 2])
def test_the_reconstruction_is_the_mean_over_passes(passes: int):
    model, objective = tiny_model(), replace(PLAIN, rollout_passes=passes)
    batch, noise = tiny_batch(model.config), draw(model.config, PLAIN)
    tokens = patchify(batch.images, 2)
    rollout = generation_pass(model, tokens, batch.labels, objective, noise).rollout
    expected = sum((decoded - tokens).abs().mean() for decoded in rollout.decoded) / (passes + 1)
    torch.testing.assert_close(losses_of(model, objective).reconstruction, expected)


def test_the_perceptual_distance_is_of_the_last_pass():
    model, seen = tiny_model(), []

    def perceptual(decoded: Tensor, real: Tensor) -> Tensor:
        seen.append((decoded, real))
        return (decoded - real).square().mean()

    objective = replace(PLAIN, perceptual_weight=1.0, flow_weight=0.0, reconstruction_weight=0.0, kl_weight=0.0)
    losses = losses_of(model, objective, perceptual=perceptual)
    batch = tiny_batch(model.config)
    noise = draw(model.config, objective)
    rollout = generation_pass(model, patchify(batch.images, 2), batch.labels, objective, noise).rollout
    [(decoded, real)] = seen
    assert torch.equal(decoded, unpatchify(rollout.decoded[-1], 2, 1))
    assert torch.equal(real, batch.images)
    losses.total.backward()
    assert names(model, "head") <= without_gradient(model)
    assert not without_gradient(model) & names(model, "encoder", "decoder")


# Gradients.


@pytest.mark.parametrize("detach_inputs", [True, False])
def test_the_flow_loss_reaches_the_states_only_through_inputs_that_are_not_detached(detach_inputs: bool):
    model = tiny_model()
    objective = replace(PLAIN, detach_inputs=detach_inputs, reconstruction_weight=0.0, kl_weight=0.0)
    losses_of(model, objective).total.backward()
    expected = names(model, "encoder", "decoder") if detach_inputs else set()
    assert without_gradient(model) == expected


def test_the_head_s_targets_carry_no_gradient():
    model = tiny_model(variant="low_dim")
    losses_of(model).flow.backward()
    assert without_gradient(model) == names(model, "encoder", "decoder")


@pytest.mark.parametrize("passes", [1, 2])
def test_detaching_moves_no_value(passes: int):
    model = tiny_model()
    kept, cut = (
        losses_of(model, replace(PLAIN, rollout_passes=passes, detach_inputs=detach)) for detach in (False, True)
    )
    assert values(kept) == values(cut)


def test_the_reconstruction_trains_all_but_the_head():
    model = tiny_model()
    losses_of(model).reconstruction.backward()
    assert without_gradient(model) == names(model, "head")


def test_the_reconstruction_without_context_trains_the_codec_alone():
    model = tiny_model(decoder_context="none")
    losses_of(model).reconstruction.backward()
    assert without_gradient(model) == names(model, "head", "transformer")


def test_the_kl_trains_the_encoder_alone():
    model = tiny_model()
    losses_of(model).kl.backward()
    assert without_gradient(model) == names(model, "head", "transformer", "decoder")


OPTIONS = [(variant, "kl", "causal") for variant in (*PIXEL_VARIANTS, "diffusion")] + [
    (variant, latent, context)
    for variant in STATE_VARIANTS
    for latent in ("kl", "sphere")
    for context in ("causal", "none")
]


@pytest.mark.parametrize(("variant", "latent", "context"), OPTIONS)
def test_every_option_trains_every_parameter(variant: str, latent: str, context: str):
    model = tiny_generator(variant=variant, latent=latent, decoder_context=context, depth=2)
    objective = ObjectiveConfig(class_dropout=0.5)
    losses = losses_of(model, objective)
    losses.total.backward()
    assert without_gradient(model) == set()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    before = {name: p.clone() for name, p in model.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert losses_of(model, objective).total < losses.total


@pytest.mark.parametrize(("variant", "latent", "context"), OPTIONS)
def test_every_option_trains_from_its_initialisation(variant: str, latent: str, context: str):
    torch.manual_seed(0)
    model = build_generator(tiny_config(variant=variant, latent=latent, decoder_context=context))
    objective = ObjectiveConfig(class_dropout=0.5)
    first = losses_of(model, objective)
    # Zero outputs at the start: the flow's error is the variance of target - noise, and each gate opens in turn.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(10):
        losses_of(model, objective).total.backward()
        optimizer.step()
        still = without_gradient(model)
        optimizer.zero_grad()
    assert still == set()
    assert losses_of(model, objective).total < 0.9 * first.total


@pytest.mark.parametrize("variant", ALL_VARIANTS)
def test_an_unconditional_model_trains(variant: str):
    model = tiny_generator(variant=variant, num_classes=1)
    losses_of(model, ObjectiveConfig(class_dropout=0.5)).total.backward()
    assert without_gradient(model) == set()


# Whole images.


def test_the_diffusion_loss_by_hand():
    model, batch = tiny_diffusion(), tiny_batch(tiny_config())
    noise = draw(model.config, PLAIN)
    tokens, start = patchify(batch.images, 2), noise.head[:, :, 0]
    errors = []
    for image in range(4):
        t = noise.time[image, 0, 0]
        assert torch.equal(noise.time[image], t.expand(4, 1))
        x = (1 - t) * start[image] + t * tokens[image]
        clean = model.denoiser(x[None], t[None], batch.labels[image : image + 1])[0]
        # The velocity's error is that of the clean image over 1 - t, and over no less than 1 - LAST_TIME.
        errors.append(((clean - tokens[image]) / (1 - t.clamp(max=LAST_TIME))).square().mean())
    losses = losses_of(model)
    torch.testing.assert_close(losses.flow, torch.stack(errors).mean())
    assert (losses.reconstruction, losses.kl) == (0, 0)


def test_dropped_images_of_diffusion_have_the_null_class():
    model, batch = tiny_diffusion(), tiny_batch(tiny_config())
    noise = replace(draw(model.config, PLAIN), drop_class=torch.ones(4, dtype=torch.bool))
    null = torch.full((4,), 3)
    dropped = training_losses(model, batch.images, batch.labels, PLAIN, noise).flow
    expected = training_losses(model, batch.images, null, PLAIN, draw(model.config, PLAIN)).flow
    torch.testing.assert_close(dropped, expected)


# Noise.


def split(noise: TrainingNoise, chosen: slice) -> TrainingNoise:
    parts = {field.name: getattr(noise, field.name) for field in fields(noise)}
    return TrainingNoise(**{name: None if part is None else part[chosen] for name, part in parts.items()})


@pytest.mark.parametrize("variant", ALL_VARIANTS)
def test_a_split_batch_has_the_same_noise_and_losses(variant: str):
    model, objective = tiny_generator(variant=variant), ObjectiveConfig(class_dropout=0.5)
    batch, whole = tiny_batch(model.config), draw(tiny_config(variant=variant), objective)
    halves = []
    for start in (0, 2):
        chosen = slice(start, start + 2)
        noise = draw_training_noise(SampleNoise(range(start, start + 2), "cpu"), model.config, objective)
        expected = split(whole, chosen)
        for field in fields(noise):
            ours, theirs = getattr(noise, field.name), getattr(expected, field.name)
            assert (ours is None and theirs is None) or torch.equal(ours, theirs), field.name
        halves.append(training_losses(model, batch.images[chosen], batch.labels[chosen], objective, noise))
    together = training_losses(model, batch.images, batch.labels, objective, whole)
    for field in fields(together):
        mean = sum(getattr(half, field.name) for half in halves) / 2
        torch.testing.assert_close(getattr(together, field.name), mean)


def test_noise_drawn_for_a_variant():
    assert draw(tiny_config(), PLAIN).posterior.shape == (4, 4, 3)
    assert draw(tiny_config(), PLAIN).perturbation.shape == (4, 4, 3)
    noisy = draw(tiny_config(variant="noisy_inputs"), PLAIN)
    assert noisy.posterior is None
    assert noisy.perturbation.shape == (4, 4, 4)
    for variant in ("teacher_forced", "x_prediction"):
        noise = draw(tiny_config(variant=variant), PLAIN)
        assert noise.posterior is None
        assert noise.perturbation is None
        assert noise.head.shape == (4, 4, 4, 4)


def test_the_perturbation_has_one_scale_an_image_uniform_up_to_the_largest():
    noise = draw(tiny_config(image_size=16, state_size=16), replace(PLAIN, noise_scale=0.6), size=400)
    scales = noise.perturbation.flatten(1).std(dim=1)
    # 1,024 values give a scale to 2 %; the mean of 400 uniform ones has a standard error of 0.009.
    assert scales.max() < 0.64
    assert scales.min() < 0.05
    assert scales.mean().item() == pytest.approx(0.3, abs=0.035)
    tokens = noise.perturbation[scales.argmax()].std(dim=1)
    assert tokens.min() > 0.2, "no token of a noisy image is spared"
    assert not draw(tiny_config(), replace(PLAIN, noise_scale=0.0)).perturbation.any()


def test_times_are_logit_normal():
    time = draw(tiny_config(image_size=16), PLAIN, size=40).time
    assert time.min() > 0
    assert time.max() < 1
    logits = time.logit()
    assert logits.mean().item() == pytest.approx(0, abs=0.05)
    assert logits.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0.0), (0.1, 0.1), (0.5, 0.5)])
def test_classes_are_dropped_at_their_rate(rate: float, expected: float):
    dropped = draw(tiny_config(), ObjectiveConfig(class_dropout=rate), size=2000).drop_class
    # Four standard errors.
    tolerance = 4 * (expected * (1 - expected) / 2000) ** 0.5
    assert dropped.float().mean().item() == pytest.approx(expected, abs=tolerance)


def test_a_dropped_class_is_the_null_class():
    model = tiny_model()
    batch, noise = tiny_batch(model.config), draw(model.config, PLAIN)
    null = torch.full_like(batch.labels, model.transformer.null_class)
    dropped = replace(noise, drop_class=torch.tensor([True] * 4))
    losses = training_losses(model, batch.images, batch.labels, PLAIN, dropped)
    assert values(losses) == values(training_losses(model, batch.images, null, PLAIN, noise))
    assert losses.flow != training_losses(model, batch.images, batch.labels, PLAIN, noise).flow


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout_passes": -1}, r"rollout_passes -1: use 0 \(teacher forcing\) or more"),
        ({"head_repeats": 0}, "head_repeats 0: use 1 or more"),
        ({"class_dropout": 1.0}, r"class_dropout 1.0: use a probability in \[0, 1\)"),
        ({"class_dropout": -0.1}, "class_dropout -0.1: use a probability"),
    ],
)
def test_objectives_that_cannot_be(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**changes)
