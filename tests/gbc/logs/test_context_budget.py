"""The length of contexts within a budget, by hand."""

import pytest

from framework.gbc.logs.context_budget import context_length


@pytest.mark.parametrize(
    ("wanted", "budget", "expected"),
    [
        ([], 100, None),
        ([400, 500, 600], 1500, None),
        # Short ones leave what they do not need to the others.
        ([100, 2000, 2000], 2100, 1000),
        ([2000, 100, 1000], 2100, 1000),
        ([2000, 2000], 3000, 1500),
        # Never less than a context is worth.
        ([2000, 2000], 100, 256),
    ],
)
def test_the_longest_are_cut_to_one_length(wanted, budget, expected):
    assert context_length(wanted, budget) == expected
