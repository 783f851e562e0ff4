"""Scores of predictions as a user asks for them."""

import json

import pytest

from framework.core.errors import DataError
from framework.gbc.commands.score_multiwoz import score_multiwoz
from tests.gbc.environments.multiwoz.conftest import DATA, write_release  # noqa: F401

TEST = "SNG0003.json"


def turns(**more: object) -> list[dict]:
    count = len(DATA[TEST]["log"]) // 2
    return [{"response": "Nothing.", **more} for _ in range(count)]


def test_a_table_and_the_judgements(tmp_path, write_release, capsys):  # noqa: F811
    release = write_release()
    path, out = tmp_path / "p.json", tmp_path / "scores.json"
    path.write_text(json.dumps({"sng0003": turns(state={}, active_domains=[])}))
    score_multiwoz(str(path), release=str(release), out=str(out))
    captured = capsys.readouterr()
    assert "Inform" in captured.out
    assert "1 dialogues; states predicted, active domains predicted" in captured.err
    written = json.loads(out.read_text())
    assert set(written["dialogues"]) == {"sng0003"}
    assert {"inform", "success"} <= set(written["figures"])
    path.write_text(json.dumps({"sng0003": turns()}))
    score_multiwoz(str(path), release=str(release))
    assert "states of the labels, active domains estimated from the states" in capsys.readouterr().err


def test_dialogues_of_another_split(tmp_path, write_release):  # noqa: F811
    release = write_release()
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"sng0002": turns()[:1]}))
    with pytest.raises(DataError, match=r"1 dialogues are not of the test split, the first is sng0002.*--split all"):
        score_multiwoz(str(path), release=str(release))
