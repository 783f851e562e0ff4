"""Features of every depth: against the transformer itself, and without a look at the class or the last token."""

import pytest
import torch

from framework.pra.image_features import Inputs, depth_features
from framework.pra.network.head import LAST_TIME
from framework.pra.network.patches import patchify
from framework.testing.models import tiny_batch, tiny_diffusion, tiny_model


def test_depths_by_the_transformer_s_own_layers():
    model = tiny_model(depth=3)
    images = tiny_batch(model.config).images
    mean, last = depth_features(model, images), depth_features(model, images, position="last")
    assert len(mean) == len(last) == 4
    null = torch.full((4,), model.transformer.null_class)
    hidden = model.transformer(patchify(images, 2), null)
    states = list(model.transformer.depths(patchify(images, 2), null))
    torch.testing.assert_close(model.transformer.norm(states[-1]), hidden)
    for depth, each in enumerate(states):
        torch.testing.assert_close(mean[depth], each.mean(1))
        torch.testing.assert_close(last[depth], each[:, -1])


@pytest.mark.parametrize("inputs", ["clean", "decoded"])
def test_an_image_s_features_are_its_own(inputs: Inputs):
    model = tiny_model(depth=2)
    images = tiny_batch(model.config).images
    whole = depth_features(model, images, inputs=inputs)
    alone = depth_features(model, images[2:3], inputs=inputs)
    for a, b in zip(whole, alone, strict=True):
        torch.testing.assert_close(a[2:3], b, rtol=1e-4, atol=1e-5)


def test_decoded_inputs_differ_from_clean_ones():
    model = tiny_model()
    images = tiny_batch(model.config).images
    clean, decoded = (depth_features(model, images, inputs=inputs)[-1] for inputs in ("clean", "decoded"))
    assert not torch.isclose(clean, decoded).all()


def test_diffusion_reads_clean_pixels_near_the_end_of_its_flow():
    model = tiny_diffusion(depth=2)
    images = tiny_batch(model.config).images
    found = depth_features(model, images)
    null, time = torch.full((4,), 3), torch.full((4,), LAST_TIME)
    states = model.denoiser.depths(LAST_TIME * patchify(images, 2), time, null)
    assert len(found) == 3
    for ours, theirs in zip(found, states, strict=True):
        torch.testing.assert_close(ours, theirs.mean(1))
