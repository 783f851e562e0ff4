"""Metrics' names say what they are in, and the documentation lists them."""

import re
from pathlib import Path

from framework.tracking import metric_names

NAMES = [value for name, value in vars(metric_names).items() if name.isupper()]
DOCS = Path(__file__).parents[2] / "docs" / "tracking.md"


def test_a_group_and_words():
    assert len(set(NAMES)) == len(NAMES) > 5
    for name in NAMES:
        assert re.fullmatch(r"[a-z]+/[a-z]+(_[a-z]+)*", name), name


def test_the_documentation_lists_them():
    rows = set(re.findall(r"^\| `([a-z_/]+)` \|", DOCS.read_text(), re.MULTILINE))
    assert set(NAMES) <= rows, f"not in the table of {DOCS.name}: {sorted(set(NAMES) - rows)}"
