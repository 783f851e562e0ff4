"""Files of a real system with a planted fault."""

import json

import pytest

from framework.core.errors import ConfigError
from framework.core.text_files import read_yaml
from framework.gbc.commands.agents import realworld
from framework.gbc.environments.realworld.example import write_example
from framework.gbc.environments.realworld.systems import load_systems
from framework.gbc.graph.spec import load_graph


def test_what_the_other_commands_need(tmp_path, capsys):
    (tmp_path / "model").mkdir()
    out = tmp_path / "out"
    realworld(str(out), model=str(tmp_path / "model"), fault=7)
    assert "planted in faulty.yaml: swapped_fields of tracker; loss slot_loss" in capsys.readouterr().out
    healthy, faulty = load_graph(out / "graph.yaml"), load_graph(out / "faulty.yaml")
    changed = {name for name, prompt in healthy.prompts.items() if faulty.prompts[name] != prompt}
    assert changed == {"tracker"}
    candidates = read_yaml(out / "candidates.yaml")
    assert healthy.prompts["tracker"] in candidates["tracker"]
    assert faulty.prompts["tracker"] in candidates["tracker"]
    texts = [(out / f"{name}.jsonl").read_text() for name in ("tasks", "held_out")]
    ids = [json.loads(line)["id"] for text in texts for line in text.splitlines()]
    assert sorted(ids) == sorted(str(task["id"]) for task in load_systems()["hotel"].numbered_tasks())
    assert read_yaml(out / "models.yaml")["lm"]["path"] == str(tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"system": "moon"}, "system 'moon': use one of almanac, assistant"),
        ({"fault": 99}, "fault 99 of hotel: use one of 0 \\(wrong_format of area\\), 1 "),
        # A tool's fault is not repaired by a prompt.
        ({"system": "booking", "fault": 7}, "fault 7 of booking"),
        ({}, "nowhere is not a folder"),
    ],
)
def test_what_is_not_there(tmp_path, options, problem):
    with pytest.raises(ConfigError, match=rf"{problem}"):
        write_example(tmp_path, **{"model": "nowhere", "system": "hotel", "fault": 0, **options})
