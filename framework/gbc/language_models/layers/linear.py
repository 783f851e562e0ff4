"""Linear layers of language models whose products, and those of their gradients, are by the faster library."""

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from framework.core.products import linear, prefers_onednn


class Linear(nn.Linear):
    """torch's layer: the same parameters and values up to rounding, and `core.products.linear` for the product."""

    def forward(self, input: Float[Tensor, "*axes inputs"]) -> Float[Tensor, "*axes outputs"]:
        return linear(input, self.weight, self.bias)


def multiply_faster(model: PreTrainedModel) -> None:
    """Makes a model's plain linear layers ours, where that is faster; its weights and their names stay."""
    if not prefers_onednn():
        return
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
