"""The order of the tests."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_longest_files_come_first(request: pytest.FixtureRequest):
    plugin = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    first = plugin.LONGEST_FIRST
    assert [name for name in first if not (ROOT / name).is_file()] == []
    files = list(dict.fromkeys(item.nodeid.partition("::")[0] for item in request.session.items))
    assert files[: len(set(first) & set(files))] == [name for name in first if name in files]
