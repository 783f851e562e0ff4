"""Records in YAML: the round trip of texts that YAML would change, and functions by their import paths."""

import json

import pytest
import yaml

from framework.core.errors import ConfigError
from framework.gbc.execution.loading import read_model_configs
from framework.gbc.graph.spec import Agent, Condition, Graph, Loop, Tool, UserTurn, load_graph, save_graph
from framework.gbc.graph.yaml_config import import_function, parse_record, read_yaml, to_yaml

TEXTS = [
    "plain",
    "two\nlines",
    "ends with lines\n\n",
    "  spaced out \n trailing ",
    "yes",
    "1.5",
    "null",
    "#: {x} 'a' \"b\" - [",
    "a\x85b\u2028c\nd\r\n\t",
    "",
    "\n",
    "🙂 é \ue000 \0",
    "word " * 100,
    "%s: |\n  - a\n",
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_come_back_as_they_were(text: str):
    agent = Agent(name="a", prompt=text, model="m", reads=("user",))
    assert parse_record(Agent, yaml.safe_load(to_yaml(agent)), source="text") == agent


@pytest.mark.parametrize("text", ["# Draft\n# {user}", "## {user}", "Mr Jones: {user}", "{user}: 70", "[{user}]"])
def test_a_text_that_may_be_left_out_comes_back_too(text: str):
    agent = Agent(name="a", prompt="p", model="m", reads=("user",), template=text)
    assert parse_record(Agent, yaml.safe_load(to_yaml(agent)), source="text") == agent


def test_a_graph_comes_back_as_it_was(tmp_path):
    graph = Graph(
        users=(UserTurn(name="user"), UserTurn(name="again", field="second")),
        tools=(Tool(name="lookup", reads=("user",), function=json.dumps, estimator="leave_one_out"),),
        agents=(
            Agent(name="draft", prompt="a: b", model="m", reads=("user", "review"), role="writes"),
            Agent(name="review", prompt="One.\nTwo.", model="n", reads=("draft", "lookup"), max_new_tokens=5),
            Agent(
                name="end",
                prompt="",
                model="m",
                reads=("draft",),
                template="{{x}} {draft}",
                estimator="pass_through",
                when=Condition(source="again", pattern=r"\d+", negate=True),
            ),
        ),
        loops=(Loop(body=("draft", "review"), times=2, until=Condition(source="review", pattern="good")),),
        outputs=("end", "review"),
    )
    save_graph(tmp_path / "new" / "graph.yaml", graph)
    assert load_graph(tmp_path / "new" / "graph.yaml") == graph
    text = (tmp_path / "new" / "graph.yaml").read_text()
    assert "prompt: |-\n      One.\n      Two.\n" in text
    assert "estimator: gradient" not in text
    small = Graph(agents=(Agent(name="a", prompt="", model="m", reads=("user",)),))
    assert "users" not in to_yaml(small)


def test_functions_without_an_import_path(tmp_path):
    def local(texts):
        return ""

    for function in (local, lambda texts: ""):
        graph = Graph(
            agents=(Agent(name="a", prompt="", model="m", reads=("t",)),),
            tools=(Tool(name="t", reads=("user",), function=function),),
        )
        with pytest.raises(ConfigError, match="has no import path"):
            save_graph(tmp_path / "graph.yaml", graph)
    assert not (tmp_path / "graph.yaml").exists()


def test_functions_are_found_also_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "their_own.py").write_text("def f():\n    return 3\n\nvalue = 4\n")
    (tmp_path / "broken_one.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    assert import_function("their_own:f")() == import_function("their_own.f")() == 3
    for path, words in (
        ("their_own:g", "AttributeError"),
        ("their_own.value", "not a function"),
        ("no_such_module.f", "ModuleNotFoundError"),
        ("broken_one:f", "ZeroDivisionError"),
        (":f", "ValueError"),
    ):
        with pytest.raises(ConfigError, match=words):
            import_function(path)


def test_files_that_are_no_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("a.yaml", "b.yaml", "none.yaml"):
        with pytest.raises(ConfigError, match=r"cannot be read|UTF-16"):
            read_yaml(tmp_path / name)


def test_a_key_that_stands_twice_would_lose_the_first(tmp_path):
    path = tmp_path / "graph.yaml"
    path.write_bytes(b"\xef\xbb\xbfagents: []\ntools: []\nagents: []\n")
    with pytest.raises(ConfigError, match=r"graph.yaml cannot be read .line 3: the key 'agents' stands twice"):
        read_yaml(path)
    path.write_bytes("agents: [café]".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"graph.yaml is not UTF-8 \(byte 0xe9\): save it as UTF-8"):
        read_yaml(path)


GRAPH = """agents:
  - name: solo
    prompt: Say yes.
    model: m
    reads: [user]
"""


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("prompt:", "promt:", "graph.yaml, line 3: agents.0.promt is not a setting: did you mean agents.0.prompt?"),
        ("agents:", "output: [a]\nagents:", "graph.yaml, line 1: output is not a setting: did you mean outputs?"),
        ("[user]", "user", "graph.yaml, line 5: agents.0.reads is user: give a list"),
        ("m\n", "m\n    max_new_tokens: many\n", "line 5: agents.0.max_new_tokens is many: give a whole number"),
        ("m\n", "m\n    estimator: gradent\n", "line 5: agents.0.estimator is gradent: use one of gradient, "),
        ("    prompt: Say yes.\n", "", "graph.yaml: prompt is missing"),
        ("Say yes.", "Say \x1b[31myes.", r"graph.yaml cannot be read (line 3: the sign \x1b is none of a text)"),
    ],
)
def test_a_mistake_in_a_graph_names_the_line_and_what_would_do(tmp_path, before: str, after: str, words: str):
    path = tmp_path / "graph.yaml"
    assert before in GRAPH
    path.write_text(GRAPH.replace(before, after, 1))
    with pytest.raises(ConfigError) as caught:
        load_graph(path)
    assert words in str(caught.value)
    assert "value" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_file_of_models(tmp_path):
    path = tmp_path / "models.yaml"
    for text, words in (
        ("temprature: 1", "models.yaml, line 2: m.temprature is not a setting: did you mean m.temperature?"),
        ("request: {max_token: x}", "line 2: m.request.max_token is not a setting: did you mean m.request.max_tokens?"),
        ("temperature: hot", "models.yaml, line 2: m.temperature is hot: give a number"),
    ):
        path.write_text(f"m: {{url: 'http://x/v1', model: foo,\n {text}}}")
        with pytest.raises(ConfigError) as caught:
            read_model_configs(path)
        assert words in str(caught.value)
    with pytest.raises(ConfigError, match=r"model 'm' of .*: temprature is not a setting"):
        read_model_configs({"m": {"url": "http://x", "model": "foo", "temprature": 1}})
