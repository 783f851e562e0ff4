"""Seeds that are functions of what they are for."""

import hashlib


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from a few numbers or words, such as (seed, epoch, index); unlike parts give unrelated seeds."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
