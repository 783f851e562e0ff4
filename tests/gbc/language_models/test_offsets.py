"""Spans of blocks and of output tokens by hand, and against a slow search."""

import random
from itertools import pairwise

from framework.gbc.language_models.offsets import output_spans, token_spans


def test_a_token_over_a_border_belongs_to_the_larger_part():
    # Template characters do not count; of two blocks the larger part, then the earlier.
    spans = token_spans([(0, 3), (3, 8), (8, 10), (10, 10), (10, 12)], [(2, 5), (5, 9), (9, 12)])
    assert spans == [(0, 1), (1, 3), (4, 5)]


def test_a_block_without_tokens_has_its_place():
    assert token_spans([(0, 2), (2, 4)], [(2, 2), (2, 4), (4, 4)]) == [(1, 1), (1, 2), (2, 2)]


def test_output_tokens_with_parts_of_characters():
    assert output_spans(["a", "a�", "a�", "aé", "aéb", "aéb"], "aéb") == (
        (0, 1),
        (1, 1),
        (1, 1),
        (1, 2),
        (2, 3),
        (3, 3),
    )


def test_spans_of_blocks_against_a_count_of_characters():
    generator = random.Random(0)
    for _ in range(50):
        cuts = [0, *sorted(generator.sample(range(1, 40), 12)), 40]
        tokens = list(pairwise(cuts))
        ends = sorted(generator.sample(range(41), 6))
        blocks = list(zip(ends[::2], ends[1::2], strict=True))
        owner = []
        for start, stop in tokens:
            shares = [sum(first <= place < last for place in range(start, stop)) for first, last in blocks]
            owner.append(shares.index(max(shares)) if any(shares) else None)
        for number, (start, stop) in enumerate(token_spans(tokens, blocks)):
            assert [token for token, block in enumerate(owner) if block == number] == list(range(start, stop))
