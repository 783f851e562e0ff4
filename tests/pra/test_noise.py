"""Random numbers that belong to a sample, not to a batch."""

import pytest
import torch

from framework.core.random.seeding import seed_of
from framework.pra.noise import SampleNoise


def test_seeds_stay_what_they_are():
    # blake2b of "train/0/1/2" and of "sample/0/0", 8 bytes, little-endian, without the lowest bit.
    assert seed_of("train", 0, 1, 2) == 1699505290116717903
    assert seed_of("sample", 0, 0) == 4611129908997253114


def test_seeds_of_unlike_parts_differ():
    seeds = {seed_of("train", *numbers) for numbers in [(1, 23), (12, 3), (123,), (1, 2, 3), (3, 2, 1)]}
    seeds.add(seed_of("validation", 1, 2, 3))
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def draws(seeds: list[int]) -> list[torch.Tensor]:
    source = SampleNoise(seeds, "cpu")
    return [source.normal(3, 2), source.uniform(), source.uniform(5), source.normal(20)]


def test_a_stream_depends_on_its_seed_and_the_calls_alone():
    together = draws([7, 8, 9])
    assert [part.shape for part in together] == [(3, 3, 2), (3,), (3, 5), (3, 20)]
    for place, seed in enumerate([7, 8, 9]):
        for part, alone in zip(together, draws([seed]), strict=True):
            assert torch.equal(part[place], alone[0])
    for part, turned in zip(together, draws([9, 7]), strict=True):
        assert torch.equal(part[[2, 0]], turned)


def test_the_first_numbers_stay_what_they_are():
    # A run that goes on draws what it would have drawn.
    uniform, normal = SampleNoise([seed_of("train", 0, 1, 2)], "cpu").uniform_and_normal(2, 3)
    assert uniform[0].tolist() == pytest.approx([0.7364867, 0.3832099], abs=1e-7)
    assert normal[0].tolist() == pytest.approx([1.5452619, -0.7444340, -0.5448268], abs=1e-6)


def test_both_kinds_of_a_call_share_no_words():
    uniform, normal = SampleNoise([7], "cpu").uniform_and_normal(5, 6)
    assert (uniform.shape, normal.shape) == ((1, 5), (1, 6))
    # Five uniform numbers take two blocks; the normal ones begin at the third.
    source = SampleNoise([7], "cpu")
    source.uniform(5)
    assert torch.equal(source.normal(6), normal)


def test_seeds_may_be_on_the_device_already():
    given = SampleNoise(torch.tensor([7, 8]), "cpu").normal(3)
    assert torch.equal(given, SampleNoise([7, 8], "cpu").normal(3))


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draws([1, 2])
    assert torch.equal(torch.rand(3), expected)


def test_streams_differ_and_go_on():
    source = SampleNoise([7, 8], "cpu")
    first, second = source.normal(4), source.normal(4)
    assert not torch.isclose(first[0], first[1]).any()
    assert not torch.isclose(first, second).any()


def test_distributions():
    source = SampleNoise(range(100), "cpu")
    normal, uniform = source.normal(200), source.uniform(200)
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01
    # Sample by sample: the streams are not shifted copies of each other.
    assert torch.corrcoef(normal).fill_diagonal_(0).abs().max() < 0.4
