"""The faster layers of a language model, with the same results up to rounding."""

from transformers import PreTrainedModel

from framework.gbc.language_models.layers.attention import read_prefixes_unmasked
from framework.gbc.language_models.layers.linear import multiply_faster


def use_fast_layers(model: PreTrainedModel) -> None:
    """Has a model attend to prefixes without masks, and multiply by the faster library."""
    read_prefixes_unmasked(model)
    multiply_faster(model)
