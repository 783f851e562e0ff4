from framework.testing.models import tiny_diffusion, tiny_model


def test_sampling_needs_all_but_the_encoder():
    diffusion, method = tiny_diffusion(), tiny_model()
    assert diffusion.num_sampling_parameters() == sum(each.numel() for each in diffusion.parameters())
    assert method.encoder is not None
    encoder = sum(each.numel() for each in method.encoder.parameters())
    assert method.num_sampling_parameters() == sum(each.numel() for each in method.parameters()) - encoder > 0


def test_units_are_blocks_and_parts():
    assert set(tiny_model().units()) >= {"transformer", "head", "decoder", "encoder", "transformer.blocks.0"}
