"""The whole model: its names, sizes and initial weights, and the one path from targets to pixels."""

import pytest
import torch

from framework.pra.network.model import PRA
from framework.testing.models import tiny_config, tiny_model

TRANSFORMER = {
    "transformer.class_slots",
    "transformer.class_embedding.weight",
    "transformer.project_in.weight",
    "transformer.project_in.bias",
    "transformer.blocks.0.attention_norm.weight",
    "transformer.blocks.0.attention.qkv.weight",
    "transformer.blocks.0.attention.query_norm.weight",
    "transformer.blocks.0.attention.key_norm.weight",
    "transformer.blocks.0.attention.out.weight",
    "transformer.blocks.0.feed_forward_norm.weight",
    "transformer.blocks.0.feed_forward.gate_and_value.weight",
    "transformer.blocks.0.feed_forward.out.weight",
    "transformer.norm.weight",
}
HEAD = {
    f"head.{layer}.{part}"
    for layer in (
        "time_embedding.hidden",
        "time_embedding.out",
        "project_context",
        "network.project_in",
        "network.blocks.0.modulation",
        "network.blocks.0.hidden",
        "network.blocks.0.out",
        "network.modulation",
        "network.project_out",
    )
    for part in ("weight", "bias")
}


def test_the_names_of_the_weights_are_those_of_older_checkpoints():
    assert tiny_model(variant="teacher_forced").state_dict().keys() == TRANSFORMER | HEAD
    names = tiny_model().state_dict().keys() - TRANSFORMER - HEAD
    parts = {"decoder.network", "encoder.project_in", "encoder.blocks", "encoder.norm", "encoder.project_out"}
    assert {".".join(name.split(".")[:2]) for name in names} == parts


def test_sizes_by_hand():
    # Width 16, four classes with the null class, two class tokens, tokens of four values.
    block = 16 + 16 * 48 + 8 + 8 + 16 * 16 + 16 + 16 * 128 + 64 * 16
    transformer = 4 * 16 + 2 * 16 + (4 * 16 + 16) + block + 16
    residual = (16 * 48 + 48) + 2 * (16 * 16 + 16)
    head = (256 * 16 + 16) + 2 * (16 * 16 + 16) + (4 * 16 + 16) + residual + (16 * 32 + 32) + (16 * 4 + 4)
    model = tiny_model(variant="teacher_forced")
    assert sum(p.numel() for p in model.parameters()) == transformer + head == 11_044
    assert model.num_sampling_parameters() == 11_044


def test_the_encoder_is_not_needed_for_sampling():
    model = tiny_model()
    assert model.encoder is not None
    encoder = sum(p.numel() for p in model.encoder.parameters())
    assert model.num_sampling_parameters() == sum(p.numel() for p in model.parameters()) - encoder
    assert encoder > 0


def test_every_parameter_is_in_a_unit_of_sharding():
    model = tiny_model(depth=2)
    units = model.units()
    assert units.keys() == {
        *("transformer", "transformer.blocks.0", "transformer.blocks.1", "head", "head.network.blocks.0"),
        *("decoder", "decoder.network.blocks.0", "encoder", "encoder.blocks.0"),
    }
    assert all(model.get_submodule(name) is unit for name, unit in units.items())
    assert all(any(name.startswith(f"{unit}.") for unit in units) for name, _ in model.named_parameters())


def test_initial_weights_are_a_function_of_seed_and_name():
    torch.manual_seed(1)
    first = PRA(tiny_config(), seed=3).state_dict()
    torch.manual_seed(2)
    second = PRA(tiny_config(), seed=3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = PRA(tiny_config(), seed=4).state_dict()
    assert not torch.equal(first["encoder.project_in.weight"], other["encoder.project_in.weight"])
    # The same name in another model, without an encoder.
    pixels = PRA(tiny_config(variant="teacher_forced"), seed=3).state_dict()
    assert all(torch.equal(first[name], pixels[name]) for name in TRANSFORMER)


def test_the_head_and_the_decoder_start_at_zero():
    model = PRA(tiny_config())
    targets, hidden = torch.randn(2, 4, 3), torch.randn(2, 4, 16)
    assert not model.head(targets, torch.rand(2, 4), hidden).any()
    assert not model.decode(targets, hidden).any()


@pytest.mark.parametrize(("latent", "equal"), [("sphere", True), ("kl", False)])
def test_decoding_projects_to_the_sphere_where_states_are_on_it(latent: str, equal: bool):
    model, hidden = tiny_model(latent=latent), torch.randn(2, 4, 16)
    states = torch.randn(2, 4, 3)
    near, far = model.decode(states, hidden), model.decode(5 * states, hidden)
    assert torch.allclose(near, far, atol=1e-5) == equal


def test_pixels_that_the_head_generates_are_decoded_as_they_are():
    model = tiny_model(variant="teacher_forced")
    assert (model.encoder, model.decoder) == (None, None)
    targets = torch.randn(2, 4, 4)
    assert model.decode(targets, torch.randn(2, 4, 16)) is targets
