"""Sampling: the flow against a Gaussian with a known answer, the cache against a loop without one, seeds."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from framework.core.errors import ConfigError
from framework.evaluation.samples import quantize_images
from framework.pra.generate import generate
from framework.pra.network.config import VariantName
from framework.pra.network.model import PRA
from framework.pra.network.patches import patchify, unpatchify
from framework.pra.noise import SampleNoise
from framework.pra.sampling import (
    SamplerConfig,
    Velocity,
    guidance_at,
    integrate_flow,
    sample,
    time_grid,
)
from framework.testing.models import tiny_model

MEAN, STD = 1.5, 0.5


def gaussian_velocity(times: list[float]) -> Velocity:
    """E[target - noise | x_t = x] for targets from N(MEAN, STD^2): both are jointly normal with x_t."""

    def velocity(x: Tensor, step: int) -> Tensor:
        t = times[step]
        variance = (1 - t) ** 2 + (t * STD) ** 2
        return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)

    return velocity


# The flow.


@pytest.mark.parametrize("stochastic", [False, True], ids=["euler", "euler_maruyama"])
def test_the_flow_reaches_a_known_gaussian(stochastic: bool):
    generator = torch.Generator().manual_seed(0)
    count, steps = 20_000, 200
    start = torch.randn(count, 1, generator=generator)
    noise = torch.randn(count, steps - 1, 1, generator=generator) if stochastic else None
    times = time_grid(steps, 1.0)
    reached = integrate_flow(gaussian_velocity(times), start, times, noise=noise)[:, 0]
    # Standard errors: 0.0035 of the mean, 0.0025 of the deviation; steps of 1/200 add as much.
    assert reached.mean().item() == pytest.approx(MEAN, abs=0.015)
    assert reached.std().item() == pytest.approx(STD, abs=0.012)
    standard = (reached - MEAN) / STD
    assert standard.pow(3).mean().item() == pytest.approx(0, abs=0.1)
    correlation = torch.corrcoef(torch.stack([start[:, 0], reached]))[0, 1].item()
    assert correlation > 0.999 if not stochastic else correlation < 0.7


@pytest.mark.parametrize(("heun", "order"), [(False, 2), (True, 4)], ids=["euler", "heun"])
def test_more_steps_come_closer_to_the_gaussian(heun: bool, order: int):
    start = torch.linspace(-2, 2, 101)[:, None]
    exact = MEAN + STD * start
    errors: list[float] = []
    for steps in (5, 20, 80):
        times = time_grid(steps, 1.0)
        reached = integrate_flow(gaussian_velocity(times), start, times, heun=heun)
        errors.append((reached - exact).abs().max().item())
    assert all(after < before / order for before, after in pairwise(errors))


def test_euler_by_hand():
    # v = t: steps at t = 0, 1/4, 2/4, 3/4 add up to 6/4 over 4.
    times = time_grid(4, 1.0)
    reached = integrate_flow(lambda x, step: torch.full_like(x, times[step]), torch.zeros(2, 3), times)
    assert reached.tolist() == [[0.375] * 3] * 2


def test_heun_by_hand():
    # v = t is integrated exactly from 0 to 1/4 to 3/4, by trapezoids; the last step is Euler's: 9/32 + 3/4 * 1/4.
    times = [0.0, 0.25, 0.75, 1.0]
    seen: list[int] = []

    def velocity(x: Tensor, step: int) -> Tensor:
        seen.append(step)
        return torch.full_like(x, times[step])

    reached = integrate_flow(velocity, torch.zeros(2, 3), times, heun=True)
    assert reached.tolist() == [[9 / 32 + 3 / 16] * 3] * 2
    assert seen == [0, 1, 1, 2, 2]


def test_euler_maruyama_by_hand():
    # Two steps from x = 2 with v = 1. At t = 0, drift 1 - (2 - 0) / 2 = 0 and noise sqrt(1 / 2) * 3; then v / 2.
    noise = torch.full((1, 1, 1), 3.0)
    reached = integrate_flow(lambda x, step: torch.ones_like(x), torch.full((1, 1), 2.0), [0.0, 0.5, 1.0], noise=noise)
    assert reached.item() == pytest.approx(2 + 3 * 0.5**0.5 + 0.5)


def test_the_last_step_is_deterministic():
    seen: list[Tensor] = []
    times = time_grid(5, 1.0)

    def velocity(x: Tensor, step: int) -> Tensor:
        seen.append(x)
        return gaussian_velocity(times)(x, step)

    noise = torch.randn(4, 4, 2)
    reached = integrate_flow(velocity, torch.randn(4, 2), times, noise=noise)
    torch.testing.assert_close(reached, seen[-1] + gaussian_velocity(times)(seen[-1], 4) / 5)
    start = torch.randn(4, 2)
    one_step = integrate_flow(gaussian_velocity(times), start, [0.0, 1.0], noise=torch.zeros(4, 0, 2))
    assert torch.equal(one_step, integrate_flow(gaussian_velocity(times), start, [0.0, 1.0]))


def test_a_shift_moves_the_steps_towards_the_noise():
    assert time_grid(4, 1.0) == [0, 0.25, 0.5, 0.75, 1]
    # u / (u + 3 (1 - u)) by hand.
    assert time_grid(2, 3.0) == [0, 0.25, 1]
    assert time_grid(2, 1 / 3) == pytest.approx([0, 0.75, 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps 0"),
        ({"time_shift": 0.0}, "time_shift 0.0"),
        ({"time_shift": float("nan")}, "time_shift nan"),
        ({"guidance": 0.5}, "guidance 0.5"),
        ({"guidance": float("nan")}, "guidance nan"),
        ({"guidance": float("inf")}, "guidance inf"),
    ],
)
def test_a_sampler_that_cannot_be(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        SamplerConfig(**settings)


# Jumps.


def test_a_jump_s_length_reaches_the_head():
    # One token and two unequal jumps of a head with random weights, by hand.
    model = tiny_model(variant="teacher_forced", image_size=2, head_jumps=True)
    labels = torch.tensor([1, 2])
    made = sample(model, labels, [5, 6], SamplerConfig(steps=2, method="jump", time_shift=3.0))
    x = SampleNoise([5, 6], "cpu").normal(4)
    with torch.no_grad():
        hidden = model.transformer(torch.zeros(2, 1, 4), labels)[:, 0]
        for start, length in ((0.0, 0.25), (0.25, 0.75)):
            x = x + length * model.head(x, torch.full((2,), start), hidden, torch.full((2,), length))
    torch.testing.assert_close(made.flatten(1), x)


def test_jumps_that_were_not_learned_are_refused():
    with pytest.raises(ConfigError, match="knows no jumps") as raised:
        sample(tiny_model(), torch.tensor([0]), [1], SamplerConfig(steps=2, method="jump"))
    assert "head_jumps" in str(raised.value.hint)


def test_guided_jumps_take_two_calls_of_the_head():
    # Two tokens; their scales are 1 and 2.
    model = tiny_model(variant="teacher_forced", image_size=4, head_jumps=True)
    labels, null = torch.tensor([1, 2]), torch.tensor([3, 3])
    made = sample(model, labels, [5, 6], SamplerConfig(steps=1, method="jump", guidance=2.0))
    tokens, zero, one = patchify(made, 2), torch.zeros(2), torch.ones(2)
    last = model.config.num_tokens - 1
    noise = SampleNoise([5, 6], "cpu", start=last).normal(4)
    with torch.no_grad():
        hidden = (model.transformer(tokens, each)[:, last] for each in (labels, null))
        of_class, of_none = (model.head(noise, zero, each, one) for each in hidden)
    torch.testing.assert_close(tokens[:, last], noise + of_none + 2 * (of_class - of_none))


# Guidance.


def test_guidance_grows_linearly():
    assert [guidance_at(i, 5, 3.0) for i in range(5)] == [1, 1.5, 2, 2.5, 3]
    assert guidance_at(0, 1, 3.0) == 3


def test_the_guided_velocity_by_hand():
    # One token, one step: x = start + v, v = v_null + scale * (v_class - v_null).
    model = tiny_model(variant="teacher_forced", image_size=2)
    labels, scale = torch.tensor([1, 2]), 2.5
    made = sample(model, labels, [5, 6], SamplerConfig(steps=1, method="euler", guidance=scale))
    start, time = SampleNoise([5, 6], "cpu").normal(4), torch.zeros(2)
    with torch.no_grad():
        nothing = torch.zeros(2, 1, 4)
        with_class = model.head(start, time, model.transformer(nothing, labels)[:, 0])
        without = model.head(start, time, model.transformer(nothing, torch.full_like(labels, 3))[:, 0])
    expected = start + without + scale * (with_class - without)
    torch.testing.assert_close(made.flatten(1), expected)


def test_guidance_one_is_unguided():
    model, labels = tiny_model(), torch.tensor([0, 1, 2])
    unguided = sample(model, labels, [1, 2, 3], SamplerConfig(steps=4))
    # A guidance of nearly 1 takes the way of two streams.
    nearly = sample(model, labels, [1, 2, 3], SamplerConfig(steps=4, guidance=1 + 1e-9))
    torch.testing.assert_close(nearly, unguided, rtol=1e-4, atol=1e-4)
    strong = sample(model, labels, [1, 2, 3], SamplerConfig(steps=4, guidance=3.0))
    assert (strong - unguided).abs().max() > 1e-2


def test_the_first_token_is_never_guided():
    model, labels = tiny_model(), torch.tensor([0, 1, 2])
    unguided = sample(model, labels, [1, 2, 3], SamplerConfig(steps=4))
    strong = sample(model, labels, [1, 2, 3], SamplerConfig(steps=4, guidance=3.0))
    torch.testing.assert_close(strong[:, :, :2, :2], unguided[:, :, :2, :2], rtol=1e-4, atol=1e-4)


# The cache.


@torch.no_grad()
def sample_without_cache(model: PRA, labels: Tensor, seeds: list[int], config: SamplerConfig) -> Tensor:
    """Token by token, each from a whole pass over the tokens so far."""
    sizes, batch = model.config, len(labels)
    null = torch.full_like(labels, model.transformer.null_class)
    source = SampleNoise(seeds, "cpu")
    tokens = torch.zeros(batch, sizes.num_tokens, sizes.pixel_size)
    for i in range(sizes.num_tokens):
        hidden = model.transformer(tokens, labels)[:, i]
        hidden_null = model.transformer(tokens, null)[:, i]
        scale = 1 + (config.guidance - 1) * i / (sizes.num_tokens - 1)
        stochastic = config.method == "euler_maruyama"
        drawn = source.normal(config.steps if stochastic else 1, sizes.target_size)
        x, noise = drawn[:, 0], drawn[:, 1:] if stochastic else None
        for step in range(config.steps):
            t = step / config.steps
            time = torch.full((batch,), t)
            v_null = model.head(x, time, hidden_null)
            v = v_null + scale * (model.head(x, time, hidden) - v_null)
            if noise is None or step == config.steps - 1:
                x = x + v / config.steps
            else:
                score = -(x - t * v) / (1 - t)
                x = x + (v + (1 - t) * score / 2) / config.steps + ((1 - t) / config.steps) ** 0.5 * noise[:, step]
        tokens[:, i] = model.decode(x[:, None], hidden[:, None])[:, 0]
    return unpatchify(tokens, sizes.patch_size, sizes.channels)


MODULATIONS = {
    "own": {},
    "shared": {"head_modulation_every": 2},
    "separate": {"head_modulation": "separate"},
}


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("method", ["euler", "euler_maruyama"])
@pytest.mark.parametrize(
    ("variant", "modulation"),
    [("pra", "own"), ("teacher_forced", "own"), ("x_prediction", "own"), ("pra", "shared"), ("pra", "separate")],
)
def test_cached_sampling_equals_uncached(variant: VariantName, modulation: str, method: str, guidance: float):
    model = tiny_model(variant=variant, image_size=6, depth=2, head_depth=3, **MODULATIONS[modulation])
    labels, config = torch.tensor([0, 2]), SamplerConfig(steps=3, method=method, guidance=guidance)
    expected = sample_without_cache(model, labels, [3, 4], config)
    torch.testing.assert_close(sample(model, labels, [3, 4], config), expected, rtol=1e-3, atol=1e-3)


# Seeds, classes and shapes.


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_batch_size_does_not_matter(guidance: float):
    model, labels = tiny_model(), [0, 1, 2, 0, 1, 2, 0, 1]
    sampler = SamplerConfig(steps=5, guidance=guidance)
    whole, threes, ones = (
        torch.cat(list(generate(model, labels, seed=1, sampler=sampler, batch_size=size))) for size in (8, 3, 1)
    )
    assert torch.equal(threes, whole)
    assert torch.equal(ones, whole)
    assert len(quantize_images(whole).flatten(1).unique(dim=0)) == 8
    # Many more rows may round differently.
    many = torch.cat(list(generate(model, labels * 5, seed=1, sampler=sampler, batch_size=40)))[:8]
    torch.testing.assert_close(many, whole, rtol=1e-4, atol=1e-4)
    assert torch.equal(quantize_images(many), quantize_images(whole))


def test_a_seed_makes_an_image():
    model, config = tiny_model(), SamplerConfig(steps=3)
    once = sample(model, torch.tensor([0, 0, 1]), [1, 2, 1], config)
    assert torch.equal(sample(model, torch.tensor([0, 0, 1]), [1, 2, 1], config), once)
    assert not torch.isclose(once[0], once[1]).all(), "another seed"
    assert not torch.isclose(once[0], once[2]).all(), "another class"


@pytest.mark.parametrize("method", ["euler", "euler_maruyama"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("variant", ["teacher_forced", "x_prediction", "noisy_inputs", "low_dim", "pra"])
def test_every_variant_samples_gray_and_rgb(variant: VariantName, channels: int, method: str):
    model = tiny_model(variant=variant, channels=channels)
    images = sample(model, torch.tensor([0, 1]), [1, 2], SamplerConfig(steps=2, method=method, guidance=1.5))
    assert images.shape == (2, channels, 4, 4)
    assert images.isfinite().all()


@pytest.mark.parametrize("decoder_context", ["causal", "none"])
def test_states_on_the_sphere_are_decoded_as_in_training(decoder_context: str):
    model = tiny_model(latent="sphere", decoder_context=decoder_context)
    radii = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: radii.append(inputs[0].norm(dim=-1)))
    sample(model, torch.tensor([0, 1]), [1, 2], SamplerConfig(steps=2))
    assert len(radii) == 4
    torch.testing.assert_close(torch.cat(radii), torch.full((8, 1), 3**0.5))


def test_no_gradient_is_kept():
    assert not sample(tiny_model(), torch.tensor([0]), [1], SamplerConfig(steps=2)).requires_grad


def test_an_unconditional_model_samples_its_one_class():
    model = tiny_model(num_classes=1)
    assert sample(model, torch.tensor([0, 0]), [1, 2], SamplerConfig(steps=2)).shape == (2, 1, 4, 4)
    with pytest.raises(ConfigError, match=r"guidance 1\.5 for an unconditional model: it has no class to drop"):
        sample(model, torch.tensor([0]), [1], SamplerConfig(steps=2, guidance=1.5))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_class_out_of_range(label: int):
    with pytest.raises(ConfigError, match=f"class {label} is out of range: use classes 0 to 2"):
        sample(tiny_model(), torch.tensor([0, label]), [1, 2], SamplerConfig(steps=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"steps": 0}, "sampler steps 0: use 1 or more"), ({"guidance": 0.5}, "guidance 0.5: use 1")],
)
def test_samplers_that_cannot_be(changes: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        SamplerConfig(**changes)
