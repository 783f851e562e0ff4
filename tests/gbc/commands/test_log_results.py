"""What is kept of logs that are done; `test_attribute_logs.py` has the command that is cut off."""

import json

import pytest

from framework.core.errors import ConfigError
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.attribution.results import Attribution
from framework.gbc.commands.log_results import FILE, SETTINGS, LogResults


def found(id: str) -> Attribution:
    return Attribution(
        id=id,
        loss=1.0,
        loss_text="",
        agents=(),
        messages=(),
        prompts=(),
        edges=(),
        trajectories=(),
        gap=0.0,
        options=AttributionOptions(),
    )


def test_lines_are_there_as_they_come_and_others_are_kept(tmp_path):
    def ids() -> list[str]:
        return [json.loads(line)["id"] for line in (tmp_path / FILE).read_text().splitlines()]

    settings = {"path": "m", "surrogate": {"max_tokens": (1, 2)}}
    results = LogResults(tmp_path, settings, resume=False)
    results.add(found("a"))
    results.add(found("b"))
    assert ids() == ["a", "b"]
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"id": "c')
    results = LogResults(tmp_path, settings, resume=True)
    assert ids() == ["a", "b"]
    results.write([found("b")])
    assert ids() == ["b", "a"]
    with pytest.raises(ConfigError, match="was begun with another path"):
        LogResults(tmp_path, {**settings, "path": "n"}, resume=True)
    assert ids() == ["b", "a"]
    (tmp_path / SETTINGS).unlink()
    with pytest.raises(ConfigError, match="leave out --resume"):
        LogResults(tmp_path, settings, resume=True)
    LogResults(tmp_path, settings, resume=False)
    assert ids() == []
