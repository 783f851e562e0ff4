"""Random numbers of a counter-based generator: a function of seed and position alone, on any device.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", sections 3.3 and 4.2)
in torch's operations on int64, since torch's own generators have one seed for a whole tensor. The words are the same
bits on every device; numbers made of them may differ in their last digits, as logarithm and cosine do.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from framework.core.devices import tensor_on

Seeds = Int[Tensor, "stream"]
Words = Int[Tensor, "_ _"]
"""Values in [0, 2^32) by stream and block; an axis of length 1 stands for all streams or blocks."""

WORDS = 4
"""Of a block of a stream."""
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words]) -> tuple[Words, Words, Words, Words]:
    """The bijection of the counter that the key chooses; all words broadcast.

    Args:
        counter: four words of 32 bits.
        key: two words of 32 bits.
    """
    first, second, third, fourth = counter
    low, high = key
    for number in range(_ROUNDS):
        if number:
            low, high = (low + _KEY_STEPS[0]) & _MASK, (high + _KEY_STEPS[1]) & _MASK
        # The product of two words needs 64 bits without a sign: those of int64 are the same.
        left, right = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second, third, fourth = (
            ((right >> 32) & _MASK) ^ second ^ low,
            right & _MASK,
            ((left >> 32) & _MASK) ^ fourth ^ high,
            left & _MASK,
        )
    return first, second, third, fourth


def random_words(seeds: Seeds, num_blocks: int, start: int | Int[Tensor, ""] = 0) -> tuple[Words, Words, Words, Words]:
    """Four words for each block of each stream.

    Args:
        seeds: of the streams, in [0, 2^63), on the device that is to draw.
        num_blocks: of each stream.
        start: blocks of it that come before, below 2^32.
    """
    key = (seeds[:, None] & _MASK, (seeds[:, None] >> 32) & _MASK)
    position = (torch.arange(num_blocks, device=seeds.device) + start)[None]
    zero = torch.zeros_like(position)
    return philox((position, zero, zero, zero), key)


def stream_seeds(seeds: Sequence[int], device: torch.device) -> Seeds:
    """Seeds of streams on a device, without a wait for it; those that are negative or too large are wrapped."""
    return tensor_on(device, [seed % 2**63 for seed in seeds])


def uniform_of(words: Words) -> Float[Tensor, "stream block"]:
    """Uniform numbers in [0, 1) of words: their upper 24 bits, as many as float32 has."""
    return (words >> 8).float() * 2.0**-24


def normal_of(radius: Words, angle: Words) -> tuple[Float[Tensor, "stream block"], Float[Tensor, "stream block"]]:
    """Two independent standard normal numbers of two words (Box and Muller 1958)."""
    # In (0, 1], so that the logarithm is finite.
    length = (-2 * ((radius + 1).float() * 2.0**-32).log()).sqrt()
    turn = 2 * math.pi * uniform_of(angle)
    return length * turn.cos(), length * turn.sin()


def gumbel_of(words: Words) -> Float[Tensor, "stream block"]:
    """Standard Gumbel numbers -log(E) of words, E = -log(1 - v) exponential; from -2.9 to 22.9."""
    # v has all 32 bits where it is small, which makes the large numbers, and is below 1.
    share = ((words.float() + 0.5) * 2.0**-32).clamp(max=1 - 2.0**-24)
    return -(-torch.log1p(-share)).log()
