"""The intermediate-state path: an encoder (training only) and the pixel decoder (training and sampling)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from framework.pra.network.layers import Linear, ModulatedMLP, Rotary2d, TransformerBlock, rms_norm
from framework.pra.shapes import Hidden, Moments, PixelTokens, States, TokenErrors


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """States of an image as the encoder gives them: a normal per value, or a point on a sphere.

    Attributes:
        mean: mean of the states; on the sphere, the states themselves.
        log_variance: log variance per value; None on the sphere.
    """

    mean: States
    log_variance: States | None

    def sample(self, noise: States) -> States:
        """States drawn with standard normal `noise` (unused on the sphere): z = mean + std * noise."""
        if self.log_variance is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl(self) -> TokenErrors:
        """KL divergence to a standard normal, in nats per token; zero on the sphere.

        The sum over values of (mean^2 + variance - 1 - log variance) / 2 (Kingma and Welling 2014, appendix B).
        """
        if self.log_variance is None:
            return torch.zeros_like(self.mean[..., 0])
        return 0.5 * (self.mean**2 + self.log_variance.exp() - 1 - self.log_variance).sum(-1)


def to_sphere(states: States) -> States:
    """Project states to radius sqrt(state): unit scale per value."""
    return F.normalize(states.float(), dim=-1) * states.shape[-1] ** 0.5


class Encoder(nn.Module):
    """Bidirectional transformer from an image's pixel tokens to its intermediate states, in training only (ours).

    Args:
        side: patches along one side of an image.
        pixel_size: values of a pixel token.
        state_size: values of an intermediate state.
        width: of the residual stream.
        depth: layers.
        num_heads: attention heads of a layer.
        latent: `kl` puts out a mean and a log variance for each value, `sphere` a point on a sphere.
        gain: factor on the initial weights of the projections into the residual stream.
    """

    def __init__(
        self,
        *,
        side: int,
        pixel_size: int,
        state_size: int,
        width: int,
        depth: int,
        num_heads: int,
        latent: Literal["kl", "sphere"],
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.project_in = Linear(pixel_size, width)
        self.rotary = Rotary2d(side=side, prefix=0, head_width=width // num_heads)
        self.blocks = nn.ModuleList(TransformerBlock(width, num_heads, causal=False, gain=gain) for _ in range(depth))
        self.norm = rms_norm(width)
        self.project_out = Linear(width, 2 * state_size if latent == "kl" else state_size)

    def forward(self, tokens: PixelTokens) -> Moments:
        """What `posterior` reads: `2 * state` values a token, or `state` on the sphere."""
        # The residual stream keeps its precision under autocast.
        x = self.project_in(tokens).to(self.norm.weight.dtype)
        for block in self.blocks:
            x = block(x, self.rotary)
        return self.project_out(self.norm(x)).float()

    def posterior(self, moments: Moments) -> Posterior:
        """The posterior that `forward`'s result stands for.

        Apart from `forward`, whose result is a tensor: a sharded module gathers its weights for the backward pass when
        the gradient of a tensor that it has returned comes in.
        """
        if self.latent == "sphere":
            return Posterior(mean=to_sphere(moments), log_variance=None)
        mean, log_variance = rearrange(moments, "b n (two d) -> two b n d", two=2)
        return Posterior(mean=mean, log_variance=log_variance.clamp(-20, 10))


class PixelDecoder(nn.Module):
    """Residual MLP per token from an intermediate state and its causal context to a pixel token (ours).

    Sixteen values alone cannot carry a patch of 768; what the prefix already tells comes from the hidden state.

    Args:
        state_size: values of an intermediate state.
        pixel_size: values of a pixel token.
        context_width: width of the hidden state; None for a decoder that does not see it.
        width: of the residual MLP.
        depth: residual blocks.
    """

    def __init__(self, *, state_size: int, pixel_size: int, context_width: int | None, width: int, depth: int) -> None:
        super().__init__()
        self.network = ModulatedMLP(
            inputs=state_size, outputs=pixel_size, width=width, depth=depth, context_width=context_width
        )

    def forward(self, states: States, hidden: Hidden | None) -> PixelTokens:
        """Pixel tokens; `hidden` may be None only for a decoder without context."""
        return self.network(states, hidden)
