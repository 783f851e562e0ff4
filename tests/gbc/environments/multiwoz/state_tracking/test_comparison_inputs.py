"""Which dialogues a comparison measures on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue
from framework.gbc.environments.multiwoz.state_tracking.comparison_inputs import Sizes, held_out, load_data
from tests.gbc.environments.multiwoz.conftest import DATA, dialogue, write_release  # noqa: F401
from tests.gbc.environments.multiwoz.dataset.test_fewshot import records
from tests.gbc.environments.multiwoz.state_tracking.test_turns import make_dialogue


def test_which_dialogues_are_held_out(dialogue: Dialogue):  # noqa: F811
    many = [replace(dialogue, id=f"{number}.json") for number in range(10)]
    assert [each.id for each in held_out([make_dialogue(), *many], {"0", "1.json"}, 4)] == [
        "2.json",
        "4.json",
        "6.json",
        "8.json",
    ]
    assert len(held_out(many, set(), 99)) == 10


def test_a_release_without_other_dialogues(tmp_path: Path, write_release: Callable[..., Path]):  # noqa: F811
    source = tmp_path / "few.json"
    source.write_text(json.dumps([{**each, "ID": "SNG0002.json"} for each in records()]))
    with pytest.raises(ConfigError, match="has no other dialogue with a goal"):
        load_data(str(write_release()), str(source), None, sizes=Sizes())
    with pytest.raises(ConfigError, match=r"at_once=0.*use 1 or more"):
        Sizes(at_once=0)


def test_damaged_dialogues_are_left_out(
    tmp_path: Path,
    write_release: Callable[..., Path],  # noqa: F811
    caplog: pytest.LogCaptureFixture,
):
    data = {**DATA, "SNG0009.json": {"goal": {}, "log": []}}
    release = write_release(data=json.dumps(data), valListFile="SNG0002.json\nSNG0009.json\n")
    source = tmp_path / "few.json"
    source.write_text(json.dumps([*records(), {"ID": "MUL0100.json"}]))
    found = load_data(str(release), str(source), None, sizes=Sizes())
    assert [each.id for each in found.held_out] == ["SNG0002.json"]
    assert len(found.train) == 1
    assert "1 of 2 dialogues are left out; the first: dialogue SNG0009.json is empty" in caplog.text
