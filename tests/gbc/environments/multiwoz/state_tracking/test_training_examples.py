"""Training examples of MultiWOZ's state tracking."""

import json
import random
import re
from pathlib import Path

import pytest

from framework.core.errors import ConfigError, DataError
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, SLOTS
from framework.gbc.environments.multiwoz.state_tracking.training_examples import (
    Pools,
    draw_examples,
    joined,
    read_parts,
    with_noise,
    with_other_values,
)
from framework.gbc.environments.multiwoz.state_tracking.turns import Exchange
from framework.gbc.environments.multiwoz.tasks import parse_state
from tests.gbc.environments.multiwoz.dataset.test_fewshot import records

EXCHANGE = Exchange(
    before={"hotel-name": "acorn guest house", "hotel-book day": "friday", "hotel-parking": "yes"},
    system="shall i book the acorn guest house for friday",
    user="no for monday and a taxi at 17:15",
    change={"hotel-book day": "monday", "taxi-leaveat": "17:15", "taxi-departure": "acorn guest house"},
)
POOLS = Pools(
    values={"place": ["caffe uno"], "day": ["sunday", "tuesday"], "number": ["7"]},
    words=["caffe", "uno"],
    said=["zzz"],
)


def test_values_are_exchanged_everywhere_alike():
    changed = 0
    for seed in range(50):
        found = with_other_values(random.Random(seed), EXCHANGE, POOLS)
        name, day = found.before["hotel-name"], found.before["hotel-book day"]
        assert found.before["hotel-parking"] == "yes"
        assert found.change["taxi-departure"] == name
        assert found.system == f"shall i book the {name} for {day}"
        assert found.user == f"no for {found.change['hotel-book day']} and a taxi at {found.change['taxi-leaveat']}"
        assert re.fullmatch(r"\d\d:\d[05]", found.change["taxi-leaveat"])
        changed += name != "acorn guest house"
    assert changed > 25


def test_a_value_in_other_words_stays():
    exchange = Exchange(before={}, system="", user="a place in the centre", change={"hotel-pricerange": "cheap"})
    assert (
        with_other_values(random.Random(0), exchange, Pools(values={"pricerange": ["high"]}, words=["a"], said=["a"]))
        == exchange
    )


def test_noise_leaves_what_the_change_needs():
    shorter = misheard = 0
    for seed in range(50):
        found = with_noise(random.Random(seed), EXCHANGE, ["zzz"], 0.8)
        assert found.change == EXCHANGE.change
        assert found.before["hotel-name"] == "acorn guest house"
        assert found.before["hotel-book day"] == "friday"
        words = {*found.system.split(), *found.user.split()}
        assert {"acorn", "guest", "house", "monday", "17:15"} <= words
        assert words <= {*EXCHANGE.system.split(), *EXCHANGE.user.split(), "zzz"}
        shorter += len(found.user.split()) < len(EXCHANGE.user.split())
        misheard += "zzz" in words
    assert 0 < shorter < 50
    assert 0 < misheard < 50


def test_two_matters_in_one_breath():
    first = Exchange(before={}, system="", user="a train on friday", change={"train-day": "friday"})
    found = joined(random.Random(0), EXCHANGE, first)
    assert found.change == {**EXCHANGE.change, "train-day": "friday"}
    assert found.user in (f"{EXCHANGE.user} {first.user}", f"{first.user} {EXCHANGE.user}")
    assert (found.before, found.system) == (EXCHANGE.before, EXCHANGE.system)
    hotel = Exchange(before={}, system="", user="a cheap hotel", change={"hotel-pricerange": "cheap"})
    assert joined(random.Random(0), EXCHANGE, hotel) == EXCHANGE


@pytest.mark.slow
def test_examples_say_what_their_prompt_asks_for(dialogue: Dialogue):
    examples = list(draw_examples([dialogue], "x", 300))
    assert examples == list(draw_examples([dialogue], "x", 300))
    assert {example["domain"] for example in examples} == {*DOMAINS}
    said = [example["answer"] != "none" for example in examples]
    assert 0.4 < sum(said) / len(said) < 0.9
    partial = recalled = 0
    for example in examples:
        domain, prompt = example["domain"], example["prompt"]
        named = {slot for slot in SLOTS[domain] if slot in prompt.replace(f"{domain} ", "", 1)}
        answered = {slot.partition("-")[2] for slot in parse_state(example["answer"], domain=domain)}
        if prompt.startswith("repeat"):
            before = example["message"].partition(" | ")[0]
            assert example["answer"] in before
            recalled += 1
        elif "," in prompt:
            assert answered <= named
            partial += 1
        assert domain in prompt
        assert example["message"].count(" | ") == 2
    assert partial > 50
    assert recalled > 20


def test_dialogues_without_change_teach_nothing(dialogue: Dialogue):
    with pytest.raises(DataError, match="too little change"):
        next(draw_examples([], "x", 1))


def test_parts_of_a_file(tmp_path: Path):
    path = tmp_path / "fewshot.json"
    path.write_text(json.dumps([{**each, "ID": f"{name}.json"} for name in "ABCDE" for each in records()]))
    parts = read_parts(path, (2, 1), seed=0)
    assert list(map(len, parts)) == [2, 1, 2]
    assert sorted(each.id for part in parts for each in part) == [f"{name}.json" for name in "ABCDE"]
    assert parts == read_parts(path, (2, 1), seed=0)
    for sizes in ((4, 1), (0, 1)):
        with pytest.raises(ConfigError, match=f"parts of {sizes[0]}, 1 dialogues"):
            read_parts(path, sizes, seed=0)


def test_real_dialogues(real_data: Path):
    _, known = read_parts(real_data / "fewshot_train_5p.json", (80,), seed=0)
    assert len(known) == 314
    examples = list(draw_examples(known, "0", 200))
    for example in examples:
        slots = parse_state(example["answer"], domain=example["domain"])
        assert example["answer"] == "none" or slots or "=none" in example["answer"]
