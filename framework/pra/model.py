"""The PRA model: a causal transformer, a diffusion head and the intermediate-state path."""

import torch
from torch import nn

from framework.pra.codec import Encoder, PixelDecoder, to_sphere
from framework.pra.config import VARIANTS, PRAConfig
from framework.pra.head import DiffusionHead
from framework.pra.layers import ModulatedMLP, Rotary2d, TransformerBlock
from framework.pra.transformer import CausalTransformer
from framework.shapes import Hidden, PixelTokens, Targets

INIT_STD = 0.02


class PRA(nn.Module):
    """Parallel Rollout Approximation (arXiv 2606.27978): the modules; `loss` and `sampling` say how they work together.

    Attributes:
        transformer: class and earlier pixel tokens to the hidden state of the next token.
        head: hidden state to the next target: an intermediate state, or a pixel token in the variants without one.
        decoder: intermediate state and hidden state to the pixel token; None where the head generates pixels.
        encoder: image to intermediate states, for training only; None where the head generates pixels.
    """

    def __init__(self, config: PRAConfig) -> None:
        super().__init__()
        self.config = config
        variant = VARIANTS[config.variant]
        side = config.image_size // config.patch_size
        self.transformer = CausalTransformer(
            side=side,
            pixel_size=config.pixel_size,
            num_classes=config.num_classes,
            class_tokens=config.class_tokens,
            width=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
        )
        self.head = DiffusionHead(
            target_size=config.target_size,
            context_width=config.width,
            width=config.head_width,
            depth=config.head_depth,
            prediction=variant.prediction,
        )
        self.decoder: PixelDecoder | None = None
        self.encoder: Encoder | None = None
        if variant.target == "states":
            self.decoder = PixelDecoder(
                state_size=config.state_size,
                pixel_size=config.pixel_size,
                context_width=config.width if config.decoder_context == "causal" else None,
                width=config.decoder_width,
                depth=config.decoder_depth,
            )
            self.encoder = Encoder(
                side=side,
                pixel_size=config.pixel_size,
                state_size=config.state_size,
                width=config.encoder_width,
                depth=config.encoder_depth,
                num_heads=config.encoder_heads,
                latent=config.latent,
            )
        self.reset_parameters()

    def decode(self, targets: Targets, hidden: Hidden) -> PixelTokens:
        """Pixel tokens of what the head generates: the one path that training and sampling share."""
        if self.decoder is None:
            return targets
        if self.config.latent == "sphere":
            # Perturbed states and generated ones lie off the sphere.
            targets = to_sphere(targets)
        return self.decoder(targets, hidden)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise every parameter and table; also after a move from the meta device."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)
            elif isinstance(module, nn.RMSNorm):
                module.reset_parameters()
        nn.init.normal_(self.transformer.class_slots, std=INIT_STD)
        for module in self.modules():
            # After the linear layers, which these set to zero in part.
            if isinstance(module, Rotary2d | ModulatedMLP):
                module.reset_parameters()
            elif isinstance(module, TransformerBlock):
                _shrink_residuals(module, self.config.depth)

    def num_sampling_parameters(self) -> int:
        """Parameters that sampling needs: all but the encoder's. The sizes `pra_s`, `pra_b`, `pra_l` count these."""
        encoder = 0 if self.encoder is None else sum(p.numel() for p in self.encoder.parameters())
        return sum(p.numel() for p in self.parameters()) - encoder


def _shrink_residuals(block: TransformerBlock, depth: int) -> None:
    """Keep the residual stream's variance independent of depth at the start (GPT-2)."""
    block.attention.out.weight.mul_((2 * depth) ** -0.5)
    block.feed_forward.out.weight.mul_((2 * depth) ** -0.5)
