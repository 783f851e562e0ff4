"""Images to pixel tokens and back."""

from einops import rearrange

from framework.core.errors import ConfigError, DataError
from framework.core.shapes import Images
from framework.pra.shapes import PixelTokens


def tokens_per_side(image_size: int, patch_size: int) -> int:
    """Patches along one side of a square image.

    Raises:
        ConfigError: the image size is not a multiple of the patch size.
    """
    if patch_size < 1 or image_size < 1 or image_size % patch_size:
        raise ConfigError(
            f"image_size {image_size} is not divisible by patch_size {patch_size}",
            hint=f"choose a patch size among the divisors of {image_size}",
        )
    return image_size // patch_size


def patchify(images: Images, patch_size: int) -> PixelTokens:
    """Cut square images into raster-ordered pixel tokens (PRA, arXiv 2606.27978).

    Token i = row * side + column of the patches; the values of a token are ordered row, column, channel.

    Raises:
        DataError: the images are not square.
        ConfigError: their size is not a multiple of the patch size.
    """
    height, width = images.shape[-2:]
    if height != width:
        raise DataError(f"images are {height}x{width}", hint="crop them to a square")
    tokens_per_side(height, patch_size)
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch_size, q=patch_size)


def unpatchify(tokens: PixelTokens, patch_size: int, channels: int) -> Images:
    """Inverse of `patchify`.

    Args:
        tokens: the pixel tokens of whole images, a square number of them.
        patch_size: side of a patch, in pixels.
        channels: of the images, 1 or 3.
    """
    side = round(tokens.shape[1] ** 0.5)
    return rearrange(tokens, "b (h w) (p q c) -> b c (h p) (w q)", h=side, p=patch_size, q=patch_size, c=channels)
