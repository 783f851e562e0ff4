"""`framework shards multiwoz`: sets, what is skipped, and the real data against another reading of it."""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framework.cli.main import main
from framework.core.errors import DataError
from framework.data.shards.check import check_shards
from framework.data.shards.reader import ShardSet
from framework.data.shards.writer import WriteOptions
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, dialogue_from_json
from framework.gbc.environments.multiwoz.dataset.shards import write_multiwoz_shards


def dialogues(folder: Path) -> dict[str, Dialogue]:
    shards = ShardSet(folder)
    episodes = [dialogue_from_json(json.loads(shards.read(number)[0])) for number in range(len(shards))]
    return {dialogue.id: dialogue for dialogue in episodes}


def test_a_release(
    write_release: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture, dialogue: Dialogue
):
    dest = tmp_path / "shards"
    main(["shards", "multiwoz", str(write_release()), str(dest)])
    assert capsys.readouterr().err.count("1 episodes in 1 shards") == 3
    assert dialogues(dest / "train") == {"MUL0001.json": dialogue}
    assert list(dialogues(dest / "validation")) == ["SNG0002.json"]
    assert dialogues(dest / "test")["SNG0003.json"].turns[0].state == {
        "attraction-area": "dontcare",
        "attraction-type": "college|swimmingpool",
    }
    assert check_shards(dest / "train") == []


def test_bad_dialogues_are_skipped_and_listed(write_release: Callable[..., Path], tmp_path: Path, data: dict[str, Any]):
    good = data["MUL0001.json"]
    data["A.json"] = {"goal": {}, "log": good["log"][:3]}
    data["B.json"] = {"goal": {}, "log": []}
    data["C.json"] = json.loads(json.dumps(good).replace('"stars"', '"suns"').replace("not mentioned", "4"))
    source = write_release(data=json.dumps(data), valListFile="SNG0002.json\nSNG0009.json", testListFile="")
    written = write_multiwoz_shards(source, tmp_path / "shards")
    assert {name: manifest.num_samples for name, manifest in written.items()} == {"train": 2, "validation": 1}
    assert [(each.source, each.reason) for each in written["train"].skipped] == [
        ("A.json", "dialogue A.json is truncated: turn 2 has no answer"),
        ("B.json", "dialogue B.json is empty"),
        ("C.json", "dialogue C.json, turn 0: label for an unknown slot 'hotel-suns'"),
    ]
    assert [each.source for each in written["validation"].skipped] == ["SNG0009.json"]
    with pytest.raises(DataError, match=r"A\.json"):
        write_multiwoz_shards(source, tmp_path / "strict", options=WriteOptions(strict=True))
    with pytest.raises(DataError, match="no dialogue"):
        write_multiwoz_shards(write_release("none", data="{}"), tmp_path / "none")


def test_multiwoz_as_read_otherwise(real_data: Path, tmp_path: Path):
    source = real_data / "MULTIWOZ.zip"
    written = write_multiwoz_shards(source, tmp_path)
    with zipfile.ZipFile(source) as archive:
        raw = json.loads(archive.read("MULTIWOZ/data.json"))
        held_out = archive.read("MULTIWOZ/valListFile.json").decode().split()
    assert {name: (each.num_samples, each.skipped) for name, each in written.items()} == {
        "train": (899, ()),
        "validation": (100, ()),
    }
    found = {split: dialogues(tmp_path / split) for split in written}
    assert sorted(found["validation"]) == sorted(held_out)
    assert sorted(found["train"]) == sorted(raw.keys() - set(held_out))
    counts: Counter[str] = Counter()
    for id, dialogue in (found["train"] | found["validation"]).items():
        log = raw[id]["log"]
        texts = [" ".join(turn["text"].split()) for turn in log]
        assert [text for turn in dialogue.turns for text in (turn.user, turn.system)] == texts
        assert set(dialogue.domains) == {
            name for name, goal in raw[id]["goal"].items() if isinstance(goal, dict) and goal
        } - {"topic"}
        for turn, answer in zip(dialogue.turns, log[1::2], strict=True):
            labels = raw_labels(answer["metadata"])
            assert turn.state.keys() == labels.keys()
            counts["labels"] += len(labels)
            for slot, value in labels.items():
                if re.fullmatch(r"\d\d:\d\d|north|cheap|monday|yes|no|dontcare|hotel|cambridge", value):
                    assert turn.state[slot] == value
                if re.search("stars|people|stay", slot):
                    assert turn.state[slot] == value
                counts["same"] += turn.state[slot].replace(" ", "") == value.replace(" ", "")
        counts["turns"] += len(dialogue.turns)
    assert (counts["turns"], counts["labels"]) == (7365, 41005)
    # What normalisation changes are spellings of names.
    assert 0.98 < counts["same"] / counts["labels"] < 1


def raw_labels(metadata: dict[str, Any]) -> dict[str, str]:
    """The labels of a turn as they are written, by another way than the product's."""
    flat = {
        (f"{domain}-book {slot}" if part == "book" else f"{domain}-{slot}").lower(): value
        for domain, parts in metadata.items()
        for part, slots in parts.items()
        for slot, value in slots.items()
        if slot != "booked" and domain not in ("hospital", "police", "bus")
    }
    return {slot: value for slot, value in flat.items() if value not in ("", "not mentioned", "none")}


@pytest.mark.parametrize(("name", "num_dialogues", "num_turns"), [("train_5p", 394, 2679), ("dev_24", 100, 731)])
def test_fewshot_files(real_data: Path, tmp_path: Path, name: str, num_dialogues: int, num_turns: int):
    source = real_data / f"fewshot_{name}.json"
    written = write_multiwoz_shards(source, tmp_path)
    assert written[""].num_samples == num_dialogues
    found = dialogues(tmp_path)
    records = json.loads(source.read_text())
    assert sum(len(dialogue.turns) for dialogue in found.values()) == len(records) == num_turns
    for record in records:
        turn = found[record["ID"]].turns[record["turn_id"]]
        assert turn.user == record["dialog"]["usr"][-1]
        assert turn.state.keys() == {slot for slot, value in record["slot_values"].items() if value != "none"}
