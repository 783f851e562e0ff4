"""Products of a linear layer with many rows, by the library that is faster on this processor."""

import platform
from functools import cache
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from framework.core.compat.torch_compat import onednn_product, packs_weights

LEAST_MULTIPLICATIONS = 1 << 22
"""Smaller products lose more in Python than they gain (ours)."""
_CPUINFO = Path("/proc/cpuinfo")


def linear(
    x: Float[Tensor, "*axes inputs"], weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"] | None
) -> Float[Tensor, "*axes outputs"]:
    """The product x W^T + b of a layer.

    torch's float32 products on a CPU are MKL's, which uses half of the vector width of AMD's processors with AVX-512:
    large ones are oneDNN's there, 1.5 to 2 times faster (measured on Zen 5), and their gradients too.

    Args:
        x: the layer's input.
        weight: of the layer.
        bias: of the layer, or None.
    """
    if _pays(x, weight):
        return cast(Tensor, _Product.apply(x, weight, bias))  # pyright: ignore[reportUnknownMemberType]
    return F.linear(x, weight, bias)


def _pays(x: Float[Tensor, "*axes inputs"], weight: Float[Tensor, "outputs inputs"]) -> bool:
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.shape[0] >= LEAST_MULTIPLICATIONS
        and not torch.is_autocast_enabled("cpu")
        and prefers_onednn()
    )


@cache
def prefers_onednn() -> bool:
    """Whether this is an AMD processor with AVX-512, and torch has oneDNN."""
    if platform.machine() != "x86_64" or not packs_weights(torch.float32) or not _CPUINFO.is_file():
        return False
    words = _CPUINFO.read_text(encoding="utf-8")
    return "AuthenticAMD" in words and "avx512f" in words


class _Product(torch.autograd.Function):
    """x W^T + b and its gradients, g W, g^T x and the sum of g, by oneDNN."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Float[Tensor, "*axes inputs"],
        weight: Float[Tensor, "outputs inputs"],
        bias: Float[Tensor, "outputs"] | None,
    ) -> Float[Tensor, "*axes outputs"]:
        """The product; `ctx` keeps what the gradients need.

        Args:
            ctx: of this call.
            x: the layer's input.
            weight: of the layer.
            bias: of the layer, or None.
        """
        # Of a frozen weight, no gradient needs the input.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)  # pyright: ignore
        return onednn_product(x, weight, bias)

    # A second derivative is an error: through these products it would be zero.
    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the name of ctx
        ctx: FunctionCtx, *gradients: Float[Tensor, "*axes outputs"]
    ) -> tuple[Float[Tensor, "*axes inputs"] | None, Float[Tensor, "outputs inputs"] | None, Tensor | None]:
        """Gradients of input, weight and bias, those that are wanted.

        Args:
            ctx: of the call.
            gradients: of the product.
        """
        saved = cast("tuple[Tensor | None, Tensor]", ctx.saved_tensors)  # pyright: ignore
        (x, weight), (gradient,) = saved, gradients
        of_input, _, of_bias = ctx.needs_input_grad  # pyright: ignore
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            onednn_product(gradient, weight.t(), None) if of_input else None,
            None if x is None else onednn_product(rows.t(), x.reshape(-1, x.shape[-1]).t(), None),
            rows.sum(0) if of_bias else None,
        )
