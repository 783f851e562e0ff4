"""The codec of records: round trips, what is refused and how it is told, and files that older code wrote."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from framework.core.errors import CheckpointError, ConfigError, DataError
from framework.core.serialization import from_json, parse_object, to_json
from framework.data.shards.manifest import read_manifest
from framework.gbc.environments.multiwoz.dataset.dialogues import dialogue_from_json
from framework.gbc.graph.trace import read_traces, trace_to_line
from framework.gbc.logs.schema import log_to_line, read_logs
from framework.gbc.prompt_search.state import load_state, save_state
from framework.gbc.tracking.episode_records import read_blame, write_blame
from framework.gbc.tracking.prompt_history import note_prompts, read_prompts
from framework.pra.export import ExportedModel
from framework.tracking.restarts import read_restarts
from framework.training.checkpoint.layout import Manifest as CheckpointManifest

OLD = Path(__file__).parent / "files_309f06c"
"""One file of each kind, written by the code at commit 309f06c, before there was one codec."""


@dataclass(frozen=True, kw_only=True)
class Inner:
    kind: Literal["a", "b"]
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    weight: float
    inner: tuple[Inner, ...] = ()
    span: tuple[int, int] = (0, 0)
    maybe: Inner | None = None
    by_name: Mapping[str, float] = field(default_factory=dict)
    anything: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path("x")
    count: int = field(default=0, metadata={"key": "attempt"})

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ConfigError(f"weight {self.weight}", hint="use 0 or more")


FULL = Outer(
    name="n",
    weight=0.5,
    inner=(Inner(kind="a"), Inner(kind="b", count=2)),
    span=(1, 2),
    maybe=Inner(kind="b"),
    by_name={"x": 1.0},
    anything={"deep": [1, None, {"er": "text"}]},
    folder=Path("a/b"),
    count=3,
)


def edited(**changes: Any) -> dict[str, Any]:
    return {**to_json(FULL), **changes}


def test_the_round_trip_is_of_plain_json():
    value = to_json(FULL)
    assert json.loads(json.dumps(value)) == value
    assert value["inner"] == [{"kind": "a", "count": 1}, {"kind": "b", "count": 2}]
    assert value["folder"] == "a/b"
    assert list(value)[-2:] == ["folder", "attempt"]
    assert from_json(Outer, value) == FULL


def test_an_integer_is_a_float_where_one_is_asked_for():
    read = from_json(Outer, edited(weight=2))
    assert (read.weight, type(read.weight)) == (2.0, float)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "record is '[]', not an object"),
        (edited(more=1, other=2), "record: unknown 'more', unknown 'other'"),
        (edited(name=3), "name is '3', not str"),
        (edited(weight="1"), "weight is '1', not a number"),
        (edited(weight=True), "weight is 'True', not a number"),
        (edited(inner="ab"), "inner is 'ab', not a list"),
        (edited(inner=[{"kind": "a", "count": 1}, {"kind": "c", "count": 1}]), "inner[1].kind is 'c', not one of a, b"),
        (edited(inner=[{"kind": "a", "count": 1.0}]), "inner[0].count is '1.0', not int"),
        (edited(inner=[{"kind": "a"}]), "inner[0]: no 'count'"),
        (edited(span=[1]), "span is '[1]', not 2 values"),
        (edited(maybe={}), "maybe: no 'count', no 'kind'"),
        (edited(by_name=[1]), "by_name is '[1]', not an object"),
        (edited(by_name={"x": "y"}), "by_name.x is 'y', not a number"),
    ],
)
def test_what_is_refused_names_the_field_and_the_value(value, problem):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared
        from_json(Outer, value)
    assert str(raised.value) == problem


def test_missing_and_unknown_keys_only_on_request():
    assert from_json(Outer, {"name": "n", "weight": 1}, allow_missing=True) == Outer(name="n", weight=1.0)
    with pytest.raises(ValueError, match="record: no 'weight'"):
        from_json(Outer, {"name": "n"}, allow_missing=True)
    newer = edited(more=1, maybe={"kind": "a", "count": 1, "newer": True})
    assert from_json(Outer, newer, ignore_unknown=True).maybe == Inner(kind="a")


def test_a_field_may_keep_its_key_in_files():
    assert from_json(Outer, edited(attempt=5)).count == 5
    with pytest.raises(ValueError, match="record: unknown 'count'"):
        from_json(Outer, edited(count=5))
    given = edited()
    del given["attempt"]
    with pytest.raises(ValueError, match="record: no 'attempt'"):
        from_json(Outer, given)
    assert from_json(Outer, given, allow_missing=True).count == 0


def test_what_the_record_itself_finds_comes_out_as_it_is():
    with pytest.raises(ConfigError, match=r"weight -1.0: use 0 or more"):
        from_json(Outer, edited(weight=-1))


@pytest.mark.parametrize(("text", "problem"), [("{", "not JSON"), ("[1]", "not a JSON object"), (b"\xff", "not UTF-8")])
def test_texts_that_are_not_an_object(text, problem):
    with pytest.raises(ValueError, match=problem):
        parse_object(text)


def kept(path: Path, old: Path) -> bool:
    """Whether all that an old file says is in the new one as it was; newer fields are added, at any depth."""

    def holds(new: Any, before: Any) -> bool:
        if isinstance(before, dict):
            return all(name in new and holds(new[name], value) for name, value in before.items())
        return new == before

    new, before = (json.loads(each.read_text()) for each in (path, old))
    return bool(before) and holds(new, before)


def same_json(path: Path, other: Path) -> bool:
    return json.loads(path.read_text()) == json.loads(other.read_text())


def test_an_old_shard_manifest(tmp_path):
    manifest = read_manifest(OLD / "shards")
    assert manifest.classes == ("cat", "dög")
    assert manifest.skipped[0].reason == "not an image"
    manifest.write(tmp_path)
    assert kept(tmp_path / "manifest.json", OLD / "shards/manifest.json")
    damaged = json.loads((tmp_path / "manifest.json").read_text())
    damaged["shards"][0]["num_bytes"] = "many"
    (tmp_path / "manifest.json").write_text(json.dumps(damaged))
    with pytest.raises(DataError, match=r"shards\[0\].num_bytes is 'many', not int"):
        read_manifest(tmp_path)


def test_an_old_checkpoint_manifest(tmp_path):
    manifest = CheckpointManifest.read(OLD / "checkpoint")
    assert (manifest.step, manifest.files["state.pt"].size, manifest.samples_consumed) == (100, 1234, 6400)
    manifest.write(tmp_path)
    assert kept(tmp_path / "manifest.json", OLD / "checkpoint/manifest.json")
    damaged = json.loads((tmp_path / "manifest.json").read_text()) | {"step": "100"}
    (tmp_path / "manifest.json").write_text(json.dumps(damaged))
    with pytest.raises(CheckpointError, match="step is '100', not int"):
        CheckpointManifest.read(tmp_path)


def test_old_starts_of_a_run():
    first, second = read_restarts(OLD)
    assert (first.start.packages, first.end and first.end.outcome) == ({"torch": "2.13.0"}, "preempted")
    assert (second.start.step, second.end) == (40, None)


def test_an_old_export(tmp_path):
    shutil.copytree(OLD / "export", tmp_path / "export")
    found = ExportedModel.read(tmp_path / "export")
    assert (found.architecture.width, found.objective.noise_scale, found.origin.step) == (64, 0.5, 500)
    assert found.entry == tmp_path / "export/model.safetensors"
    found.write()
    assert kept(tmp_path / "export/config.json", OLD / "export/config.json")


def test_old_prompts_and_episodes(tmp_path):
    note_prompts(tmp_path, read_prompts(OLD))
    assert (tmp_path / "prompts.jsonl").read_bytes() == (OLD / "prompts.jsonl").read_bytes()
    blame = read_blame(OLD)
    assert blame is not None
    assert blame.episodes[0].texts[0].spans == ((0, 3), (3, 5))
    write_blame(tmp_path, blame, None)
    assert (tmp_path / "blame/episodes.json").read_bytes() == (OLD / "blame/episodes.json").read_bytes()


def test_an_old_state_of_an_optimization(tmp_path):
    state = load_state(OLD / "optimizer.json")
    assert state.trials[0].changes == {"a": "q"}
    save_state(tmp_path / "state.json", state)
    assert same_json(tmp_path / "state.json", OLD / "optimizer.json")


def test_old_traces_logs_and_dialogues():
    (trace,), bad = read_traces(OLD / "traces.jsonl")
    assert not bad
    assert trace_to_line(trace) == (OLD / "traces.jsonl").read_text().strip()
    (log,), bad = read_logs(OLD / "logs.jsonl")
    assert not bad
    assert log_to_line(log) == (OLD / "logs.jsonl").read_text().strip()
    episode = json.loads((OLD / "dialogue.json").read_text())
    assert to_json(dialogue_from_json(episode)) == episode
