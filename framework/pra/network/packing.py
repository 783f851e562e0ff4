"""The linear layers of a model that only samples: weights in the precision of the products, laid out for the processor.

A sampler multiplies few rows by every weight thousands of times: casting a weight or laying it out anew in every
product costs more than the product.
"""

import copy
from typing import Literal, TypeVar, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from framework.core.compat.torch_compat import onednn_product, packed_weight, packs_weights
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.layers import Linear

Model = TypeVar("Model", bound=ImageGenerator)
Precision = Literal["fp32", "bf16"]
"""Of matrix products."""
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class PackedLinear(nn.Module):
    """A linear layer on a CPU whose weight is in oneDNN's own layout; for inference, outside of autocast.

    Input and output are float32 in either precision, as is all between the layers: on a CPU that costs less than
    bfloat16, in whose arithmetic torch's attention of a single position takes five times as long.

    Args:
        layer: whose weight and bias it has.
        precision: of the product.
    """

    dtype = torch.float32

    def __init__(self, layer: Linear, precision: Precision) -> None:
        super().__init__()
        self._dtype = DTYPES[precision]
        # Not a buffer: it cannot be saved, cast or moved to another device.
        self._weight = packed_weight(layer.weight.detach().to(self._dtype))
        bias = cast("Shaped[Tensor, 'output'] | None", layer.bias)
        self._bias = None if bias is None else bias.detach().to(self._dtype)

    def forward(self, x: Float[Tensor, "*axes inputs"]) -> Float[Tensor, "*axes outputs"]:
        return onednn_product(x.to(self._dtype), self._weight, self._bias).float()


def pack_for_sampling(model: Model, precision: Precision) -> Model:
    """A model that samples as `model` does, up to rounding, and faster; it shares all but its linear layers' weights.

    On a CPU with oneDNN the weights are laid out for it (see `PackedLinear`); elsewhere they are cast alone, and other
    operations go on to be autocast's.

    Args:
        model: in evaluation mode, on its device, whole (not sharded).
        precision: of matrix products.
    """
    packed = shared_copy(model)
    for module in list(packed.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, Linear):
                setattr(module, name, _packed(layer, precision))
    return packed


def shared_copy(model: Model) -> Model:
    """A model of modules of its own, whose tensors are the same: what is replaced in it stays as it was in `model`.

    Its parameters are frozen ones with the same values, as freezing those of `model` itself would end its training.
    """
    kept: dict[int, Tensor] = {id(buffer): buffer for buffer in model.buffers()}
    kept |= {id(each): nn.Parameter(each.detach(), requires_grad=False) for each in model.parameters()}
    return copy.deepcopy(model, kept).eval()


def is_packed(model: ImageGenerator) -> bool:
    """Whether its products are oneDNN's, whose rows do not depend on how many there are."""
    return any(isinstance(module, PackedLinear) for module in model.modules())


def _packed(layer: Linear, precision: Precision) -> nn.Module:
    if layer.weight.device.type == "cpu" and packs_weights(DTYPES[precision]):
        return PackedLinear(layer, precision)
    lowered = copy.copy(layer)
    lowered._parameters = {  # pyright: ignore[reportPrivateUsage]
        name: None if each is None else nn.Parameter(each.detach().to(DTYPES[precision]), requires_grad=False)
        for name, each in layer._parameters.items()  # pyright: ignore[reportPrivateUsage]
    }
    return lowered
