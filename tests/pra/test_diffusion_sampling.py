"""Sampling of whole images: against a slow reference, each image by its own seed, guidance, refusals."""

import pytest
import torch
from torch import Tensor

from framework.core.errors import ConfigError
from framework.pra.diffusion_sampling import sample_diffusion
from framework.pra.generate import generate
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.packing import pack_for_sampling
from framework.pra.network.patches import unpatchify
from framework.pra.noise import SampleNoise
from framework.pra.sampling import SamplerConfig
from framework.testing.models import tiny_diffusion

LABELS = torch.tensor([0, 1, 2])


@torch.no_grad()
def reference(model: PixelDiffusion, seeds: list[int], config: SamplerConfig) -> Tensor:
    """One image after the other, the guided velocity from two passes of one image each."""
    stochastic, images = config.method == "euler_maruyama", []
    for label, seed in zip(LABELS, seeds, strict=True):
        drawn = SampleNoise([seed], "cpu").normal(config.steps if stochastic else 1, 16).view(-1, 4, 4)
        x = drawn[0]
        for step in range(config.steps):
            t = step / config.steps
            time = torch.tensor([t])

            def velocity(known: Tensor, x: Tensor = x, time: Tensor = time, t: float = t) -> Tensor:
                return (model.denoiser(x[None], time, known[None])[0] - x) / (1 - t)

            v, null = velocity(label), velocity(torch.tensor(3))
            v = null + config.guidance * (v - null)
            if stochastic and step < config.steps - 1:
                score = -(x - t * v) / (1 - t)
                x = x + (v + (1 - t) * score / 2) / config.steps + ((1 - t) / config.steps) ** 0.5 * drawn[step + 1]
            else:
                x = x + v / config.steps
        images.append(x)
    return unpatchify(torch.stack(images), 2, 1)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("method", ["euler", "euler_maruyama"])
def test_by_a_slow_reference(method, guidance: float):
    model, config = tiny_diffusion(), SamplerConfig(steps=4, method=method, guidance=guidance)
    expected = reference(model, [5, 6, 7], config)
    torch.testing.assert_close(sample_diffusion(model, LABELS, [5, 6, 7], config), expected, rtol=1e-4, atol=1e-4)


def test_an_image_is_a_function_of_its_own_seed():
    model, config = tiny_diffusion(), SamplerConfig(steps=3)
    whole = sample_diffusion(model, LABELS, [5, 6, 7], config)
    torch.testing.assert_close(sample_diffusion(model, LABELS[1:2], [6], config), whole[1:2], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(sample_diffusion(model, LABELS[1:2], [8], config), whole[1:2], atol=1e-2)


def test_generate_draws_it_whatever_the_batch_size():
    model, sampler = tiny_diffusion(), SamplerConfig(steps=2, method="heun")
    one = torch.cat(list(generate(model, [0, 1, 2, 0, 1], seed=1, sampler=sampler)))
    two = torch.cat(list(generate(model, [0, 1, 2, 0, 1], seed=1, sampler=sampler, batch_size=2)))
    assert one.shape == (5, 1, 4, 4)
    assert torch.equal(one, two)


def test_packed_weights_draw_the_same_images():
    model, sampler = tiny_diffusion(), SamplerConfig(steps=3, guidance=2.0)
    (plain,), (packed,) = (
        generate(each, [0, 1, 2], seed=0, sampler=sampler) for each in (model, pack_for_sampling(model, "fp32"))
    )
    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "config", "message"),
    [
        ([3], SamplerConfig(), "class 3 is out of range"),
        ([0], SamplerConfig(method="jump"), "a head that knows no jumps"),
    ],
)
def test_what_it_cannot_draw_is_refused(labels: list[int], config: SamplerConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        sample_diffusion(tiny_diffusion(), torch.tensor(labels), [0], config)
