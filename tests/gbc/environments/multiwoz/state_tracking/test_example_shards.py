"""Training examples as shards: what `framework shards multiwoz-examples` writes."""

import json
from pathlib import Path

import pytest

from framework.cli.main import main
from framework.core.errors import ConfigError
from framework.data.shards.reader import ShardSet
from framework.gbc.environments.multiwoz.state_tracking.example_shards import write_example_shards
from framework.gbc.environments.multiwoz.state_tracking.turns import change_targets, read_dialogues
from framework.language_model.module import encode_episode, load_tokenizer
from tests.gbc.environments.multiwoz.dataset.test_fewshot import records


def write_source(folder: Path) -> Path:
    path = folder / "fewshot.json"
    path.write_text(json.dumps([{**each, "ID": f"{name}.json"} for name in "ABCDE" for each in records()]))
    return path


def test_examples_dialogues_and_a_tokenizer(tmp_path: Path):
    source, dest = write_source(tmp_path), tmp_path / "examples"
    counts = {"examples": 40, "practice": 30, "tuning": 1, "set_aside": 1}
    sizes = [word for name, count in counts.items() for word in (f"--num_{name}", str(count))]
    main(["shards", "multiwoz-examples", str(source), str(dest), *sizes])
    parts = [{each.id for each in read_dialogues(dest / name)} for name in ("known", "tuning", "set_aside")]
    assert [len(part) for part in parts] == [3, 1, 1]
    assert len(set.union(*parts)) == 5
    tokenizer = load_tokenizer(dest / "tokenizer")
    for name in ("train", "validation"):
        shards = ShardSet(dest / name)
        assert len(shards) == 40
        for number in range(40):
            read, said = encode_episode(tokenizer, json.loads(shards.read(number)[0]))
            assert read
            assert said
    practice = ShardSet(dest / "practice")
    tasks = [json.loads(practice.read(number)[0]) for number in range(len(practice))]
    assert len({task["id"] for task in tasks}) == 30
    # Of dialogues that the language model does not know, and that choices are not made by.
    assert {task["dialogue"] for task in tasks} == parts[1]
    assert all(change_targets(task).keys() > set(task["domains"]) for task in tasks)


def test_what_cannot_be_parted(tmp_path: Path):
    source = write_source(tmp_path)
    for examples, tuning, problem in ((0, 1, "0 examples, 1 for practice"), (1, 4, "parts of 4, 1 dialogues")):
        with pytest.raises(ConfigError, match=problem):
            write_example_shards(
                source,
                tmp_path / "x",
                num_examples=examples,
                num_practice=1,
                num_tuning=tuning,
                num_set_aside=1,
            )
