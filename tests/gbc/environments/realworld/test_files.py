"""Episodes and verdicts come back from their files."""

from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.planted_faults import Cost
from framework.gbc.environments.realworld.candidates import Verdict
from framework.gbc.environments.realworld.episodes import plant_faults
from framework.gbc.environments.realworld.files import (
    Result,
    append_result,
    read_episodes,
    read_results,
    write_episodes,
)


def test_episodes_and_verdicts_come_back(system, analogy, tmp_path: Path):
    faulty = plant_faults(system, analogy)
    write_episodes(tmp_path / "made" / "episodes.jsonl", faulty)
    assert read_episodes(tmp_path / "made" / "episodes.jsonl", system) == faulty
    path = tmp_path / "verdicts.jsonl"
    assert read_results(path) == []
    verdict = Verdict(blame={"word": 0.5}, cost=Cost(tokens=3), is_probability=True, features={"word": {"first": 1.0}})
    result = Result(candidate="evidence", faulty="pair-0", task="pair-1", verdicts={"evidence": verdict})
    append_result(path, result)
    # As a killed process leaves one.
    with path.open("a") as stream:
        stream.write('{"half": ')
    append_result(path, result)
    assert read_results(path) == [result, result]
    assert result.key == ("evidence", "pair-0", "pair-1")
    path.write_text("{}\n")
    with pytest.raises(DataError, match=r"verdicts.jsonl, line 1: .*remove the line"):
        read_results(path)
