"""Sizes of a recipe's model, from large to small, for `framework plan --within_hours`."""

from collections.abc import Mapping
from typing import Any

_DEPTHS = {1024: 16, 768: 11, 512: 10, 384: 8, 256: 6, 192: 5, 128: 4, 96: 4, 64: 3}
"""Layers of the causal transformer by its width; those of 768 are PRA-S's (ours)."""
_HEAD_VALUES = 64
"""Of an attention head, at most."""


def sizes_of(model: Mapping[str, Any]) -> list[dict[str, int]]:
    """Settings of `model.architecture` for each size, the largest first; the others stay as in the recipe.

    Widths of head and decoder are 4/3 of the transformer's and those of the encoder half of it, as in PRA-S (ours).

    Args:
        model: the recipe's `model.init_args`.
    """
    del model  # Every architecture has the same ones.
    return [_size(width, depth) for width, depth in _DEPTHS.items()]


def _size(width: int, depth: int) -> dict[str, int]:
    num_heads = max(2, width // _HEAD_VALUES)
    large = width >= 512
    return {
        "width": width,
        "depth": depth,
        "num_heads": num_heads,
        "head_width": _up(4 * width / 3),
        "head_depth": 6 if large else 3,
        "decoder_width": _up(4 * width / 3),
        "decoder_depth": 4 if large else 2,
        "encoder_width": width // 2,
        "encoder_depth": max(2, depth // 2),
        "encoder_heads": max(1, num_heads // 2),
    }


def _up(width: float) -> int:
    """To the next multiple of 32."""
    return -(-int(width) // 32) * 32
