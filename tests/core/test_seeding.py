"""Seeds that are functions of what they are for."""

from framework.core.seeding import seed_of


def test_seeds_stay_what_they_are():
    # blake2b of "train/0/1/2" and of "sample/0/0", 8 bytes, little-endian, without the lowest bit.
    assert seed_of("train", 0, 1, 2) == 1699505290116717903
    assert seed_of("sample", 0, 0) == 4611129908997253114


def test_seeds_of_unlike_parts_differ():
    seeds = {seed_of("train", *numbers) for numbers in [(1, 23), (12, 3), (123,), (1, 2, 3), (3, 2, 1)]}
    seeds.add(seed_of("validation", 1, 2, 3))
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
