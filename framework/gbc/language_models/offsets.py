"""Where tokens lie in text: the tokens of each block of an input, and the span of each generated token (ours).

A token that has characters of a block and of the template belongs to the block; one that has characters of two blocks
belongs to the one with more of them, and to the earlier where they have as many.
"""

from collections.abc import Sequence

from framework.gbc.graph.trace import Span


def token_spans(offsets: Sequence[Span], blocks: Sequence[Span]) -> list[Span]:
    """The tokens of each block; (n, n) for a block without any.

    Args:
        offsets: of each token in the text, in order; tokens without text are empty and belong to no block.
        blocks: character spans that do not overlap.
    """
    owned: list[list[int]] = [[] for _ in blocks]
    for token, (start, stop) in enumerate(offsets):
        shares = [min(stop, block[1]) - max(start, block[0]) for block in blocks]
        largest = max(shares, default=0)
        if largest > 0:
            owned[shares.index(largest)].append(token)
    spans: list[Span] = []
    for block, tokens in zip(blocks, owned, strict=True):
        if tokens:
            spans.append((tokens[0], tokens[-1] + 1))
        else:
            before = sum(stop <= block[0] for _, stop in offsets)
            spans.append((before, before))
    return spans


def output_spans(prefixes: Sequence[str], text: str) -> tuple[Span, ...]:
    """Where each output token lies in the text.

    Args:
        prefixes: what the first 1, 2, ... tokens decode to.
        text: what all of them decode to. A character of several tokens belongs to the last of them.
    """
    spans: list[Span] = []
    start = 0
    for prefix in prefixes:
        stop = max(start, _common_length(prefix, text, start))
        spans.append((start, stop))
        start = stop
    return tuple(spans)


def _common_length(left: str, right: str, known: int) -> int:
    length = known
    for a, b in zip(left[known:], right[known:], strict=False):
        if a != b:
            break
        length += 1
    return length
