"""Files of models, tasks, losses and candidates: what they say, and what is wrong with them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from framework.core.errors import ConfigError, DataError
from framework.gbc.execution.loading import (
    enough_memory,
    load_all_models,
    load_candidates,
    load_loss,
    load_models,
    load_tasks,
    read_model_configs,
    role_reader,
)
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss, exact_match
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.language_models.server import ServerModel, ServerModelConfig
from framework.testing.language_models import save_tiny_model

GRAPH = Graph(agents=(Agent(name="a", prompt="", model="small", reads=("user",)),))
TRACE = Trace(id="7", task={"expected": "yes"}, steps=(), skipped=(), outputs=())


def test_models_by_name(tmp_path):
    save_tiny_model(tmp_path / "tiny")
    path = tmp_path / "models.yaml"
    path.write_text(
        f"small: {{path: {tmp_path}/tiny, temperature: 0.5, template_options: {{x: 1}}}}\n"
        "large: {url: 'http://localhost:1/v1', model: big, timeout_s: 3}\n"
        "unused: {path: /nowhere}\n"
    )
    configs = read_model_configs(path)
    assert configs["small"] == LocalModelConfig(path=f"{tmp_path}/tiny", temperature=0.5, template_options={"x": 1})
    assert configs["large"] == ServerModelConfig(url="http://localhost:1/v1", model="big", timeout_s=3.0)
    models = load_models(path, GRAPH, "large")
    assert list(models) == ["large", "small"]
    assert isinstance(models["small"], LocalModel)
    assert isinstance(models["large"], ServerModel)
    with pytest.raises(ConfigError, match=r"an option uses model 'huge', which .* does not name: use one of small"):
        load_models(path, GRAPH, "huge")
    path.write_text("large: {url: 'http://localhost:1/v1', model: big}\nother: {url: 'http://localhost:2', model: b}")
    assert [model.config.model for model in load_all_models(path).values()] == ["big", "b"]
    path.write_text("other: {path: /nowhere}")
    with pytest.raises(ConfigError, match="agent 'a' uses model 'small'"):
        load_models(path, GRAPH)


def test_a_local_model_reads_for_agents_that_are_all_on_servers():
    server = {"url": "http://localhost:1/v1", "model": "x"}
    models = {"far": server, "near": {"path": "/a"}, "nearer": {"path": "/b"}}

    def graph(*models: str, role: str = "answers") -> Graph:
        agents = [Agent(name=f"a{n}", prompt="", model=each, reads=(), role=role) for n, each in enumerate(models)]
        return Graph(agents=tuple(agents))

    assert role_reader(models, graph("far", "far")) == ["near"]
    assert role_reader(models, graph("far", "nearer")) == []
    assert role_reader(models, graph("far", role="")) == []
    assert role_reader({"far": server}, graph("far")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no models"),
        ("[small]", "names no models"),
        ("small: tiny", "model 'small' of .*give it a `path`"),
        ("small: {temperature: 1}", "give it a `path`"),
        ("small: {path: x, url: 'http://x'}", "give it a `path`"),
        ("small: {path: x, temprature: 1}", "temprature"),
        ("small: {path: x, batch_size: many}", "batch_size"),
        ("small: {path: x, batch_size: 0}", "batch_size 0"),
        ("small: {url: 'http://x'}", "model"),
    ],
)
def test_models_that_cannot_be_used(tmp_path, text: str, words: str):
    (tmp_path / "models.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_model_configs(tmp_path / "models.yaml")


def test_tasks_have_an_id_each(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"user": "é"}\n\n{"id": 9, "user": "b"}\n{"user": "c"}\n')
    assert load_tasks(path) == [{"id": "0", "user": "é"}, {"id": "9", "user": "b"}, {"id": "2", "user": "c"}]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has no tasks"),
        (b'{"user": "a"}\n{"user"\n', "line 2: not JSON"),
        (b'["a"]', "line 1: not a JSON object"),
        (b'"\xff"', "line 1: not UTF-8"),
        (b'{"id": "7"}\n{}\n{"id": 7}', "line 3: a second task '7'"),
    ],
)
def test_tasks_that_cannot_be_used(tmp_path, data: bytes, words: str):
    (tmp_path / "tasks.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=words):
        load_tasks(tmp_path / "tasks.jsonl")


def test_a_file_of_tasks_that_is_missing(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_tasks(tmp_path / "none.jsonl")


def test_losses_by_name_and_by_path(tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(
        "from framework.gbc.graph.verbal_loss import VerbalLoss\n"
        "def good(trace):\n    return VerbalLoss(value=0.25, text=trace.id)\n"
        "def number(trace):\n    return 0.5\n"
        "def strict(trace):\n    return VerbalLoss(value=-1.0, text='')\n"
    )
    monkeypatch.chdir(tmp_path)
    expected = VerbalLoss(value=1.0, text="Expected 'yes', the output was ''.", expected_output="yes")
    assert (
        load_loss("exact_match")(TRACE) == load_loss("framework.gbc.graph.verbal_loss:exact_match")(TRACE) == expected
    )
    assert exact_match(TRACE) == expected
    assert load_loss("own_losses:good")(TRACE) == VerbalLoss(value=0.25, text="7")
    with pytest.raises(ConfigError, match=r"loss 'exact': use one of exact_match, slot_loss, or an import path"):
        load_loss("exact")
    with pytest.raises(ConfigError, match="own_losses:number returned float on task '7'"):
        load_loss("own_losses:number")(TRACE)
    with pytest.raises(DataError, match=r"a loss of -1.0"):
        load_loss("own_losses:strict")(TRACE)
    other = Trace(id="8", task={}, steps=(), skipped=(), outputs=())
    with pytest.raises(DataError, match=r"loss exact_match raised KeyError \('expected'\) on task '8'"):
        load_loss("exact_match")(other)


def test_candidates(tmp_path):
    path = tmp_path / "candidates.yaml"
    path.write_text(json.dumps({"a": ["x", "y"]}))
    assert load_candidates(path) == {"a": ["x", "y"]}
    for text, words in (
        ("", "holds no candidates"),
        ("a: x", "not a list of texts"),
        ("a: [1]", "not a list of texts"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            load_candidates(path)


def test_soft_prompts_of_a_file_are_read_by_their_agents(tmp_path):
    save_tiny_model(tmp_path / "tiny")
    save_file({"a": torch.ones(2, 32)}, tmp_path / "soft.safetensors")
    save_file({"a": torch.ones(2, 16)}, tmp_path / "narrow.safetensors")
    model = LocalModel.load(LocalModelConfig(path=f"{tmp_path}/tiny", soft_prompts=f"{tmp_path}/soft.safetensors"))
    soft = model.soft_prompt("a@2")
    assert soft is not None
    assert torch.equal(soft, torch.ones(2, 32))
    assert model.soft_prompt("b") is None
    for name, words in (("narrow.safetensors", r"'a' has shape \[2, 16\]"), ("none.safetensors", "holds no soft")):
        with pytest.raises(ConfigError, match=words):
            LocalModel.load(LocalModelConfig(path=f"{tmp_path}/tiny", soft_prompts=f"{tmp_path}/{name}"))


def test_memory_that_is_not_enough():
    message = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB"
    with pytest.raises(ConfigError, match=r"not enough \(CUDA out of memory\): use less"), enough_memory("use less"):
        raise torch.OutOfMemoryError(message)
    with pytest.raises(RuntimeError, match="another"), enough_memory("use less"):
        raise RuntimeError("another")


def test_tasks_as_other_programs_write_them(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"user": "a"}\r\n\r\n{"user": "b \\ud83d"}\n{"user": "\xe2\x80\xa8"}')
    # Half of a character fails its task when it runs: the others are not to blame.
    assert [task["user"] for task in load_tasks(path)] == ["a", "b \ud83d", "\u2028"]
    for data, words in (
        (b'{"user": "a"}\n{"user": "\xe9"}', r"line 2: not UTF-8 \(byte 0xe9\)"),
        (b'{"user": "a", "user": "b"}', "line 1: .*two values of 'user'"),
        ('{"user": "a"}'.encode("utf-16"), "UTF-16"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=words):
            load_tasks(path)
