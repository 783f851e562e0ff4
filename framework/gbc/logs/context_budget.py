"""How long contexts may be, where all contexts of a log together are bounded (ours)."""

from collections.abc import Sequence

LOG_TOKENS = 6_144
"""Of all contexts of a log, on a CPU."""
LEAST_TOKENS = 256
"""Of a context, whatever the budget."""


def context_length(wanted: Sequence[int], budget: int) -> int | None:
    """The length to which longer contexts are cut, so that all of them stay in a budget; None if they do anyway.

    Args:
        wanted: tokens of each context.
        budget: of all of them, in tokens.
    """
    left = budget
    for rank, tokens in enumerate(sorted(wanted)):
        length = left // (len(wanted) - rank)
        if tokens > length:
            return max(LEAST_TOKENS, length)
        left -= tokens
    return None
