"""The intermediate-state path: scales of the states, and who sees whom."""

import math

import pytest
import torch

from framework.pra.network.codec import Posterior, to_sphere
from framework.testing.models import tiny_model


def test_kl_by_hand():
    # N(1, 1): (1 + 1 - 1 - 0) / 2. N(0, 4): (0 + 4 - 1 - ln 4) / 2.
    posterior = Posterior(mean=torch.tensor([[[1.0, 0.0]]]), log_variance=torch.tensor([[[0.0, math.log(4)]]]))
    expected = 0.5 + (3 - math.log(4)) / 2
    torch.testing.assert_close(posterior.kl(), torch.tensor([[expected]]))


def test_kl_is_zero_at_the_standard_normal_alone():
    zeros = torch.zeros(1, 2, 3)
    assert Posterior(mean=zeros, log_variance=zeros).kl().tolist() == [[0, 0]]
    assert (Posterior(mean=zeros, log_variance=zeros - 0.1).kl() > 0).all()


def test_samples_by_hand():
    posterior = Posterior(mean=torch.tensor([[[1.0, 2.0]]]), log_variance=torch.tensor([[[0.0, math.log(9)]]]))
    torch.testing.assert_close(posterior.sample(torch.tensor([[[-1.0, 2.0]]])), torch.tensor([[[0.0, 8.0]]]))


def test_the_sphere_s_radius():
    torch.testing.assert_close(
        to_sphere(torch.tensor([[[3.0, 4.0, 0.0, 0.0]]])), torch.tensor([[[1.2, 1.6, 0.0, 0.0]]])
    )


def test_states_on_the_sphere_have_unit_scale_no_noise_and_no_divergence():
    tokens = torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0))
    posterior = tiny_model(latent="sphere").encode(tokens)
    torch.testing.assert_close(posterior.mean.square().mean(-1), torch.ones(2, 4))
    assert posterior.sample(torch.ones(2, 4, 3)) is posterior.mean
    assert torch.equal(posterior.kl(), torch.zeros(2, 4))


@pytest.mark.parametrize("latent", ["kl", "sphere"])
def test_the_encoder_sees_the_whole_image_from_every_token(latent: str):
    model = tiny_model(latent=latent)
    tokens = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = model.encode(tokens).mean
    assert before.shape == (1, 4, 3)
    for j in range(4):
        changed = tokens.clone()
        changed[:, j] += 1
        assert not torch.isclose(model.encode(changed).mean, before, atol=1e-6).all(-1).any()


def test_log_variance_is_bounded():
    model = tiny_model()
    torch.nn.init.constant_(model.encoder.project_out.bias, 1000.0)
    posterior = model.encode(torch.zeros(1, 4, 4))
    assert posterior.log_variance.unique().tolist() == [10.0]
    assert posterior.mean.unique().numel() > 1
    assert posterior.mean.min() > 900


@pytest.mark.parametrize(("decoder_context", "sees"), [("causal", True), ("none", False)])
def test_the_decoder_sees_its_context_only_when_asked(decoder_context: str, sees: bool):
    model = tiny_model(decoder_context=decoder_context)
    states, hidden = torch.randn(2, 4, 3), torch.randn(2, 4, 16)
    pixels = model.decode(states, hidden)
    assert pixels.shape == (2, 4, 4)
    assert torch.equal(model.decode(states, hidden + 1), pixels) is not sees
    assert not torch.isclose(model.decode(states + 1, hidden), pixels).all(-1).any()
    if not sees:
        assert torch.equal(model.decoder(states, None), pixels)


@pytest.mark.parametrize("decoder_context", ["causal", "none"])
def test_the_decoder_works_token_by_token(decoder_context: str):
    model = tiny_model(decoder_context=decoder_context)
    states, hidden = torch.randn(1, 4, 3), torch.randn(1, 4, 16)
    changed_states, changed_hidden = states.clone(), hidden.clone()
    changed_states[:, 2] += 1
    changed_hidden[:, 2] += 1
    before, after = model.decode(states, hidden), model.decode(changed_states, changed_hidden)
    assert (~torch.isclose(before, after).all(-1)).tolist() == [[False, False, True, False]]


def test_pixels_need_no_decoding_where_the_head_generates_them():
    model = tiny_model(variant="teacher_forced")
    pixels = torch.randn(2, 4, 4)
    assert model.decode(pixels, torch.randn(2, 4, 16)) is pixels
    assert model.decoder is None
    assert model.encoder is None
