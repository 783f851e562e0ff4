"""The PRA model: a causal transformer, a diffusion head and the intermediate-state path."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from framework.core.init import initialise
from framework.pra.network.codec import Encoder, PixelDecoder, Posterior, to_sphere
from framework.pra.network.config import VARIANTS, PRAConfig
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.head import DiffusionHead
from framework.pra.network.layers import ResidualBlock, TransformerBlock
from framework.pra.network.transformer import CausalTransformer
from framework.pra.shapes import Hidden, PixelTokens, Targets


class PRA(ImageGenerator):
    """Parallel Rollout Approximation (arXiv 2606.27978): the modules; `loss` and `sampling` say how they work together.

    Attributes:
        transformer: class and earlier pixel tokens to the hidden state of the next token.
        head: hidden state to the next target: an intermediate state, or a pixel token in the variants without one.
        decoder: intermediate state and hidden state to the pixel token; None where the head generates pixels.
        encoder: image to intermediate states, for training only; None where the head generates pixels.

    Args:
        config: the architecture.
        seed: of the initial weights, which are a function of it and of each module's qualified name; unused on the
            meta device.
    """

    BLOCKS: ClassVar[tuple[type[nn.Module], ...]] = (TransformerBlock, ResidualBlock)
    PARTS: ClassVar[Mapping[str, Sequence[str]]] = {
        "transformer": ("begin", "step"),
        "head": ("of_state", "of_time", "velocity"),
        "decoder": (),
        "encoder": (),
    }

    def __init__(self, config: PRAConfig, *, seed: int = 0) -> None:
        super().__init__(config)
        assert VARIANTS[config.variant].inputs != "diffused", "build_generator makes the model of every variant"
        # Keeps the residual stream's variance independent of depth at the start (GPT-2).
        gain = (2 * config.depth) ** -0.5
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
            gain=gain,
        )
        self.head = DiffusionHead(
            target_size=config.target_size,
            context_width=config.width,
            width=config.head_width,
            depth=config.head_depth,
            prediction=variant.prediction,
            jumps=config.head_jumps,
            modulation=config.head_modulation,
            modulation_every=config.head_modulation_every,
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
                gain=gain,
            )
        initialise(self, seed)

    def decode(self, targets: Targets, hidden: Hidden) -> PixelTokens:
        """Pixel tokens of what the head generates: the one path that training and sampling share."""
        if self.decoder is None:
            return targets
        if self.config.latent == "sphere":
            # Perturbed states and generated ones lie off the sphere.
            targets = to_sphere(targets)
        return self.decoder(targets, hidden)

    def encode(self, tokens: PixelTokens) -> Posterior:
        """Posterior of an image's intermediate states; only where the head generates states."""
        assert self.encoder is not None
        return self.encoder.posterior(self.encoder(tokens))

    def num_sampling_parameters(self) -> int:
        """Parameters that sampling needs: all but the encoder's. The sizes `pra_s`, `pra_b`, `pra_l` count these."""
        encoder = 0 if self.encoder is None else sum(p.numel() for p in self.encoder.parameters())
        return super().num_sampling_parameters() - encoder
