"""The pixels themselves as features."""

from einops import rearrange

from framework.evaluation.features.network import FeatureNetwork, Features, Pixels


class PixelFeatures(FeatureNetwork):
    """The flattened pixels, in [0, 1]: a baseline that needs no weights (ours)."""

    name = "pixels"

    def forward(self, images: Pixels) -> Features:
        return rearrange(images, "sample channel height width -> sample (channel height width)").float() / 255
