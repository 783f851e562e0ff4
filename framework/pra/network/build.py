"""The model of an architecture: the method and its rows with a causal transformer, or the diffusion model."""

from framework.pra.network.config import VARIANTS, PRAConfig
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.model import PRA


def build_generator(config: PRAConfig, *, seed: int = 0) -> ImageGenerator:
    """A new model.

    Args:
        config: the architecture, whose variant says which model it is.
        seed: of the initial weights; unused on the meta device.
    """
    if VARIANTS[config.variant].inputs == "diffused":
        return PixelDiffusion(config, seed=seed)
    return PRA(config, seed=seed)
