"""Every way in which an episode can fail ends in a mark with its reason, and the others go on."""

from collections.abc import Mapping
from typing import Any

import pytest

from framework.core.errors import ConfigError, DataError
from framework.gbc.environments.multiwoz.training import Tasks
from framework.gbc.execution.runner import RunOptions
from framework.gbc.graph.spec import Agent, Condition, Graph, Loop, Tool
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.server import ServerModel, ServerModelConfig
from framework.gbc.training.rollouts import (
    EpisodeResult,
    failed_share,
    mean_loss,
    one_task,
    run_episodes,
    split_episodes,
    success_share,
)
from framework.testing.servers.model_server import serving


def call(texts: Mapping[str, str]) -> str:
    """A tool that wants `name(argument)`."""
    name, _, rest = texts["agent"].partition("(")
    if not rest.endswith(")"):
        raise ValueError(f"malformed call {texts['agent']!r}")
    return name


def agent(name: str, *reads: str, **options: Any) -> Agent:
    return Agent(name=name, prompt="Speak.", model="big", reads=reads, estimator="pass_through", **options)


def loss(trace: Trace) -> VerbalLoss:
    if "label" not in trace.task:
        raise DataError("no label", hint="give one")
    return VerbalLoss(value=0.0 if trace.task["label"] in trace.output else 0.5, text="")


def results_of(graph: Graph, episodes: list[Any], *faults: str | int, **options: Any) -> list[EpisodeResult]:
    with serving(*faults) as server:
        model = ServerModel(
            ServerModelConfig(url=server.url, model="x", timeout_s=5.0, retries=0, backoff_s=0.0, parallel=1)
        )
        tasks = split_episodes(range(len(episodes)), episodes, one_task)
        return run_episodes(graph, {"big": model}, tasks, loss=loss, options=RunOptions(**options))


def test_a_malformed_call_a_missing_field_and_a_missing_label():
    graph = Graph(agents=(agent("agent", "user"),), tools=(Tool(name="tool", reads=("agent",), function=call),))
    episodes = [{"user": "go(x)", "label": "USER: GO"}, {"user": "go(", "label": "GO"}, {"label": ""}, {"user": "a()"}]
    found = results_of(graph, [*episodes, "no object"])
    assert [each.id for each in found] == ["0", "1", "2", "3", "4"]
    assert found[0].succeeded
    words = ["malformed call", "no text 'user'", "no label", "is str, not a task"]
    for each, expected in zip(found[1:], words, strict=True):
        assert expected in str(each.failure), each
        assert each.loss is None
    assert (success_share(found), failed_share(found), mean_loss(found)) == (0.2, 0.8, 0.0)


def test_a_server_that_fails_in_between():
    graph = Graph(agents=(agent("agent", "user"),))
    tasks = [{"user": str(number), "label": str(number)} for number in range(6)]
    found = results_of(graph, tasks, "well", "well", 500, tasks_at_once=2)
    assert [each.succeeded for each in found] == [True, True, False, False, False, False]
    assert all("failed 1 times, at last: state 500" in str(each.failure) for each in found[2:])
    assert [each.sample for each in found] == list(range(6))
    # The next batch asks anew.
    assert all(each.succeeded for each in results_of(graph, tasks))


def test_a_loop_that_does_not_end():
    loop = Loop(body=("agent",), times=3, until=Condition(source="agent", pattern="DONE"))
    graph = Graph(agents=(agent("agent", "user", "agent"),), loops=(loop,), outputs=("agent",))
    found = results_of(graph, [{"user": "go", "label": ""}, {"user": "done", "label": ""}])
    assert found[0].failure == "the loop over agent did not end within 3 rounds"
    assert found[1].succeeded


def test_dialogues_that_are_truncated_empty_or_have_unknown_labels(dialogue):
    def changed(**turn: Any) -> dict[str, Any]:
        return {**dialogue, "turns": [{**dialogue["turns"][0], **turn}]}

    episodes = [
        dialogue,
        changed(state={"hotel-colour": "red"}),
        {**dialogue, "turns": []},
        changed(user=" "),
        {key: value for key, value in dialogue.items() if key != "turns"},
    ]
    found = split_episodes(range(5), episodes, Tasks())
    assert [(each.sample, each.number, each.weight) for each, _ in found[:2]] == [(0, 0, 0.5), (0, 1, 0.5)]
    words = ["unknown slot 'hotel-colour'", "is empty", "the user says nothing", "not a MultiWOZ dialogue"]
    for (each, _), expected in zip(found[2:], words, strict=True):
        assert expected in str(each.failure), each


@pytest.fixture
def dialogue() -> dict[str, Any]:
    turn = {"user": "A hotel", "system": "Which?", "state": {"hotel-area": "north"}, "requested": [], "booked": []}
    return {
        "id": "A.json",
        "split": "train",
        "domains": ["hotel"],
        "goal": {},
        "turns": [{**turn, "template": None}, {**turn, "template": None}],
    }


def test_functions_that_fail():
    def broken(episode: Any) -> Any:
        return [episode["user"]]

    ((first, _), (second, _)) = split_episodes([3, 4], [{}, {"user": "text"}], broken)
    assert first.failure == "its tasks cannot be read (KeyError: 'user')"
    assert "has no tasks" in str(second.failure)

    def misconfigured(episode: Any) -> Any:
        raise ConfigError("a release", hint="give one")

    with pytest.raises(ConfigError):
        split_episodes([0], [{}], misconfigured)
