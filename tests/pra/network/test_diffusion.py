"""The diffusion row's network: every token sees every other, class and time modulate, the start is a plain one."""

import pytest
import torch
from torch.nn import functional as F

from framework.pra.network.build import build_generator
from framework.pra.network.config import PRAConfig
from framework.pra.network.diffusion import ModulatedTransformerBlock, PixelDiffusion
from framework.pra.network.layers import Rotary2d, TransformerBlock
from framework.testing.models import tiny_config, tiny_diffusion


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, 4, generator=generator)
    return x, torch.rand(batch, generator=generator), torch.arange(batch) % 3


def test_every_token_depends_on_every_other():
    model = tiny_diffusion()
    x, time, labels = inputs(1)
    x.requires_grad_()
    out = model.denoiser(x, time, labels)
    for position in range(4):
        (gradient,) = torch.autograd.grad(out[0, position].sum(), x, retain_graph=True)
        assert (gradient[0].abs().sum(1) > 0).all()


@pytest.mark.parametrize("changed", ["time", "class"])
def test_time_and_class_are_seen(changed: str):
    model = tiny_diffusion()
    x, time, labels = inputs()
    other = model.denoiser(x, 1 - time, labels) if changed == "time" else model.denoiser(x, time, 2 - labels)
    assert (model.denoiser(x, time, labels) - other).abs().max() > 1e-3


def test_an_unmodulated_block_is_the_other_rows_block_without_a_mask():
    block = ModulatedTransformerBlock(16, 2, condition_width=8)
    plain = TransformerBlock(16, 2, causal=False)
    plain.load_state_dict({name: value for name, value in block.state_dict().items() if "modulation" not in name})
    rotary = Rotary2d(side=2, prefix=0, head_width=8)
    rotary.reset_parameters()
    x, condition = torch.randn(2, 4, 16), torch.randn(2, 8)
    # Shifts and scales of 0 and gates of 1.
    block.modulation.bias.data.view(6, 16)[[2, 5]] = 1
    torch.testing.assert_close(block(x, rotary, condition), plain(x, rotary))


def test_a_block_starts_as_the_identity_and_the_network_as_zero():
    model = PixelDiffusion(tiny_config(variant="diffusion"), seed=3)
    x, time, labels = inputs()
    assert not model.denoiser(x, time, labels).any()
    states = model.denoiser.depths(x, time, labels)
    assert torch.equal(states[0], states[1])


def test_the_velocity_leads_to_the_clean_image():
    model = tiny_diffusion()
    x, time, labels = inputs()
    velocity = model.velocity(x, time, labels)
    end = x + (1 - time)[:, None, None] * velocity
    torch.testing.assert_close(end, model.denoiser(x, time, labels))


def test_initial_weights_are_a_function_of_the_seed():
    first, second, other = (PixelDiffusion(tiny_config(variant="diffusion"), seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["denoiser.project_in.weight"], other["denoiser.project_in.weight"])


def test_all_weights_are_in_a_unit():
    model = tiny_diffusion()
    assert set(model.units()) == {"denoiser", "denoiser.blocks.0"}
    assert all(name.startswith("denoiser.") for name, _ in model.named_parameters())


def test_it_learns_a_class_by_its_brightness():
    config = PRAConfig(
        image_size=4, patch_size=2, num_classes=2, channels=1, width=16, depth=1, num_heads=2, head_width=16,
        variant="diffusion",
    )  # fmt: skip
    model = build_generator(config)
    assert isinstance(model, PixelDiffusion)
    labels = torch.tensor([0, 1] * 8)
    clean = (labels * 1.6 - 0.8)[:, None, None].expand(16, 4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        time = torch.rand(16, generator=generator)
        noise = torch.randn(16, 4, 4, generator=generator)
        x = (1 - time)[:, None, None] * noise + time[:, None, None] * clean
        loss = F.mse_loss(model.denoiser(x, time, labels), clean)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    said = model.denoiser(torch.randn(16, 4, 4, generator=generator), torch.zeros(16), labels).mean((1, 2))
    assert said[labels == 1].mean() > 0.2
    assert said[labels == 0].mean() < -0.2
