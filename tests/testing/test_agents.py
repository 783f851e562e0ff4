"""The tiny world of agents: a loss by hand, a tool that fails on demand, and files that fit together."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from framework.data.shards.reader import ShardSet
from framework.gbc.graph.spec import load_graph
from framework.gbc.graph.verbal_loss import Place
from framework.testing.agents import length_loss, make_world, spoiled


def test_the_loss_by_hand():
    # 97 + 98 + 99 + 100 = 394 = 4 * 97 + 6; the first two of four characters are wrong.
    trace: Any = SimpleNamespace(output="abcd", outputs=("last",), step=lambda _: SimpleNamespace(output="abcd"))
    loss = length_loss(trace)
    assert loss.value == 0.07
    assert loss.places == (Place(step="last", start=0, stop=2),)


def test_the_tool_raises_where_the_user_says_so():
    assert spoiled({"user": "a hotel"}) == "a hotel"
    with pytest.raises(ValueError, match="malformed call"):
        spoiled({"user": "a hotel raise"})


def test_the_files_of_a_world_fit_together(tmp_path: Path):
    make_world(tmp_path, episodes=6, bad=2)
    graph = load_graph(tmp_path / "graph.yaml")
    assert list(graph.prompts) == ["first", "last"]
    candidates = json.loads((tmp_path / "candidates.yaml").read_text())
    assert {name: texts[0] for name, texts in candidates.items()} == graph.prompts
    tasks = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [task["user"].endswith(" raise") for task in tasks] == [True, True, False, False, False, False]
    assert (len(ShardSet(tmp_path / "train")), len(ShardSet(tmp_path / "held_out"))) == (6, 5)
    assert (tmp_path / "model" / "config.json").is_file()
