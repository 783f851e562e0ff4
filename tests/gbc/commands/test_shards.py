"""The commands that make shards: what they write. Dialogues and their examples have tests beside their modules."""

import json
from pathlib import Path

import pytest

from framework.core.errors import ConfigError
from framework.data.shards.reader import ShardSet
from framework.gbc.commands.shards import microworld
from framework.gbc.environments.microworld.training_examples import draw_examples


def test_examples_of_the_micro_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    microworld(str(tmp_path), num_examples=3, num_validation=2, seed=5)
    for part, count in (("train", 3), ("validation", 2)):
        shards = ShardSet(tmp_path / part)
        found = [json.loads(shards.read(number)[0]) for number in range(len(shards))]
        assert found == list(draw_examples(f"5/{part}", count))
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()
    assert "3 episodes in 1 shards" in capsys.readouterr().err


def test_a_part_without_examples(tmp_path: Path):
    with pytest.raises(ConfigError, match="0 examples for validation"):
        microworld(str(tmp_path), num_examples=1, num_validation=0)
