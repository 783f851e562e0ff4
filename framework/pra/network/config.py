"""The architecture of a PRA model, its variants and its named sizes."""

from dataclasses import dataclass
from typing import Literal, get_args

from framework.core.errors import ConfigError
from framework.pra.network.patches import tokens_per_side

VariantName = Literal["teacher_forced", "x_prediction", "noisy_inputs", "low_dim", "pra", "diffusion"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What the head generates, how, and what the transformer sees in training.

    With `diffused` inputs there is no head: the transformer itself generates all tokens together, from noisy ones.
    """

    target: Literal["pixels", "states"]
    prediction: Literal["velocity", "clean"]
    inputs: Literal["clean", "noisy", "decoded", "diffused"]


VARIANTS: dict[VariantName, Variant] = {
    "teacher_forced": Variant(target="pixels", prediction="velocity", inputs="clean"),
    "x_prediction": Variant(target="pixels", prediction="clean", inputs="clean"),
    "noisy_inputs": Variant(target="pixels", prediction="velocity", inputs="noisy"),
    "low_dim": Variant(target="states", prediction="velocity", inputs="clean"),
    "pra": Variant(target="states", prediction="velocity", inputs="decoded"),
    "diffusion": Variant(target="pixels", prediction="clean", inputs="diffused"),
}


@dataclass(frozen=True, kw_only=True)
class PRAConfig:
    """Architecture of Parallel Rollout Approximation (arXiv 2606.27978); the choices of layers are ours.

    Args:
        image_size: side of the square images, in pixels; a multiple of `patch_size`.
        patch_size: side of a patch, in pixels: one pixel token each.
        num_classes: classes of the data; 1 means unconditional.
        channels: 1 for gray, 3 for RGB.
        variant: what the head generates and what the transformer sees in training; `pra` is the method, the others
            are the rows it is compared with: `teacher_forced`, `x_prediction`, `noisy_inputs`, `low_dim`, and
            `diffusion`, a bidirectional transformer that denoises whole images.
        width: width of the transformer; `width / num_heads` must be a multiple of 4.
        depth: layers of the transformer.
        num_heads: attention heads of the causal transformer.
        class_tokens: tokens that carry the class at the start of the sequence.
        head_width: width of the diffusion head; for `diffusion`, of what time and class are embedded in.
        head_depth: residual blocks of the diffusion head.
        head_modulation: how the hidden state and the flow's time modulate the head's blocks: `joint`, by one function
            of their sum, or `separate`, by a sum of two functions, with which a step of sampling costs less than half.
        head_modulation_every: blocks of the head that share a modulation; `head_depth` for one for all.
        head_jumps: the head learns mean velocities over stretches of time as well, so that sampling takes few steps
            (see `jump_repeats` of the objective and the sampler's method `jump`).
        state_size: values of an intermediate state.
        decoder_width: width of the pixel decoder.
        decoder_depth: residual blocks of the pixel decoder.
        decoder_context: `causal`: the pixel decoder sees the transformer's hidden state; `none`: only the state.
        encoder_width: width of the encoder (training only).
        encoder_depth: layers of the encoder.
        encoder_heads: attention heads of the encoder.
        latent: how states are kept at unit scale: `kl`, a divergence to a standard normal, or `sphere`, a fixed
            radius of sqrt(state_size).
    """

    image_size: int
    patch_size: int
    num_classes: int
    channels: Literal[1, 3] = 3
    variant: VariantName = "pra"
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    class_tokens: int = 16
    head_width: int = 1024
    head_depth: int = 6
    head_modulation: Literal["joint", "separate"] = "joint"
    head_modulation_every: int = 1
    head_jumps: bool = False
    state_size: int = 16
    decoder_width: int = 1024
    decoder_depth: int = 3
    decoder_context: Literal["causal", "none"] = "causal"
    encoder_width: int = 512
    encoder_depth: int = 6
    encoder_heads: int = 8
    latent: Literal["kl", "sphere"] = "kl"

    def __post_init__(self) -> None:
        tokens_per_side(self.image_size, self.patch_size)
        if self.channels not in (1, 3):
            raise ConfigError(f"channels {self.channels}", hint="use 1 for gray or 3 for RGB")
        if self.variant not in get_args(VariantName):
            raise ConfigError(f"variant {self.variant!r}", hint=f"use one of {', '.join(get_args(VariantName))}")
        if self.head_modulation not in ("joint", "separate"):
            raise ConfigError(f"head_modulation {self.head_modulation!r}", hint="use joint or separate")
        if self.head_jumps and VARIANTS[self.variant].prediction != "velocity":
            raise ConfigError(
                f"head_jumps with variant {self.variant}", hint="its head predicts clean pixels; jumps need velocities"
            )
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}", hint="use a positive number")
        for width, heads in (("width", "num_heads"), ("encoder_width", "encoder_heads")):
            if getattr(self, width) % (4 * getattr(self, heads)):
                raise ConfigError(
                    f"{width} {getattr(self, width)} over {heads} {getattr(self, heads)} is not a multiple of 4",
                    hint="2-D rotary positions turn pairs of values in two halves of a head; change either number",
                )

    @property
    def num_tokens(self) -> int:
        """Pixel tokens of an image."""
        return tokens_per_side(self.image_size, self.patch_size) ** 2

    @property
    def pixel_size(self) -> int:
        """Values of a pixel token."""
        return self.channels * self.patch_size**2

    @property
    def target_size(self) -> int:
        """Values that the head generates at a step."""
        return self.state_size if VARIANTS[self.variant].target == "states" else self.pixel_size


_COUNTS = (
    "num_classes",
    "width",
    "depth",
    "num_heads",
    "class_tokens",
    "head_width",
    "head_depth",
    "head_modulation_every",
    "state_size",
    "decoder_width",
    "decoder_depth",
    "encoder_width",
    "encoder_depth",
    "encoder_heads",
)
