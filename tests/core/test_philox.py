"""The generator's words are those that its authors published; numbers made of them have the right distributions."""

import math

import pytest
import torch

from framework.core.philox import gumbel_of, normal_of, philox, random_words, stream_seeds, uniform_of

# Salmon et al.'s Random123, tests/kat_vectors: philox4x32, 10 rounds; the second is all ones, the third digits of pi.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_published_words(counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]):
    first, second, third, fourth = (torch.tensor([[word]]) for word in counter)
    low, high = (torch.tensor([[word]]) for word in key)
    words = philox((first, second, third, fourth), (low, high))
    assert tuple(word.item() for word in words) == expected


def test_a_word_is_a_function_of_seed_and_place():
    seeds = torch.tensor([5, 2**62 + 3, 5 + 2**32])
    whole = random_words(seeds, 6)
    later = random_words(seeds[1:2], 2, start=3)
    for all_words, some in zip(whole, later, strict=True):
        assert torch.equal(all_words[1:2, 3:5], some)
    # Seeds that share their lower or upper halves share nothing else.
    assert not torch.isin(whole[0][0], whole[0][2]).any()


def test_uniform_numbers_by_hand():
    words = torch.tensor([[0, 255, 256, 0xFFFFFFFF, 0x80000000]])
    assert uniform_of(words).tolist() == [[0.0, 0.0, 2.0**-24, 1 - 2.0**-24, 0.5]]


def test_normal_numbers_by_hand():
    # u = 2^-32 and a quarter of a turn; u = 1 has a length of zero; the largest is finite.
    cosine, sine = normal_of(torch.tensor([[0, 0xFFFFFFFF]]), torch.tensor([[0x40000000, 0x12345600]]))
    assert cosine[0].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert sine[0].tolist() == pytest.approx([math.sqrt(2 * 32 * math.log(2)), 0], rel=1e-6, abs=1e-6)


def test_moments_and_tails():
    words = random_words(torch.arange(64), 4000)
    normal = torch.cat(normal_of(words[0], words[1]))
    assert normal.mean().abs() < 0.005
    assert (normal.std() - 1).abs() < 0.005
    assert (normal.pow(4).mean() - 3).abs() < 0.05
    assert ((normal.abs() > 2).float().mean() - 0.0455).abs() < 0.002


def test_gumbel_numbers():
    words = torch.cat([each.flatten() for each in random_words(torch.arange(8), 5000)])
    numbers = gumbel_of(words[None]).double()
    # Mean and variance of the standard distribution: Euler's constant and pi^2 / 6.
    assert numbers.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert numbers.var().item() == pytest.approx(math.pi**2 / 6, rel=0.02)
    ends = gumbel_of(torch.tensor([[0, 1, 2**32 - 1]]))
    torch.testing.assert_close(
        ends[0], torch.tensor([33 * math.log(2), 33 * math.log(2) - math.log(3), -2.8115]), atol=1e-3, rtol=0
    )


def test_seeds_of_any_size():
    assert stream_seeds([-1, 2**63, 7], torch.device("cpu")).tolist() == [2**63 - 1, 0, 7]
