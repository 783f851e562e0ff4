"""Seeds depend on every part, on nothing else, and not on the machine."""

import hashlib

from framework.core.random.seeding import seed_of


def test_a_seed_is_the_hash_of_its_parts():
    digest = hashlib.blake2b(b"weights/7/head.0", digest_size=8).digest()
    assert seed_of("weights", 7, "head.0") == int.from_bytes(digest, "little") >> 1


def test_seeds_fit_a_generator_and_differ():
    seeds = [seed_of(seed, epoch, index) for seed in range(10) for epoch in range(10) for index in range(10)]
    assert len(set(seeds)) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, 23) != seed_of(12, 3)
    # Half of the bits of a fair seed are set.
    assert abs(sum(seed.bit_count() for seed in seeds) / 1000 / 63 - 0.5) < 0.02
