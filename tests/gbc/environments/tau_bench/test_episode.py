"""Episodes: the loop as a trace, blame through tools, and each way in which one fails."""

import json
import re

import pytest

from framework.core.errors import ConfigError, DataError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.commands.attribute import attribute as attribute_command
from framework.gbc.environments.tau_bench.episode import (
    EpisodeOptions,
    episode_graph,
    make_agent,
    parse_actions,
    run_episode,
    system_prompt,
)
from framework.gbc.environments.tau_bench.interface import Action
from framework.gbc.environments.tau_bench.losses import mean_reward, tau_loss
from framework.gbc.environments.tau_bench.simulators import ScriptedUser
from framework.gbc.graph.spec import Agent, load_graph, save_graph
from framework.gbc.graph.trace import trace_from_line, trace_to_line, write_traces
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.testing.language_models import save_tiny_model, tiny_local_model


def call(name: str, order: str) -> str:
    return json.dumps({"name": name, "arguments": {"order_id": order}})


CALLS = (call("get_order", "1"), call("cancel_order", "1"), call("get_order", "1"))


def agent_of(shop, **options) -> Agent:
    return Agent(name="agent", prompt="Serve.", model="m", reads=(), estimator="pass_through", **options)


def test_a_conversation_as_a_trace(shop, lines):
    model = lines("Which order?", call("get_order", "1"), call("cancel_order", "1"), "Done.")
    episode = run_episode(shop, 0, ScriptedUser(["Cancel it.", "The first."]), agent_of(shop), model)
    trace = episode.trace
    assert [step.name for step in trace.steps] == [
        "user@1",
        "agent@1",
        "user@2",
        "agent@2",
        "get_order@2",
        "agent@3",
        "cancel_order@3",
        "agent@4",
        "user@5",
    ]
    assert (episode.reward.value, trace.failure) == (1.0, None)
    assert [block.source for block in trace.step("get_order@2").blocks] == ["agent@2"]
    assert [block.source for block in trace.step("agent@3").messages] == [
        "user@1",
        "agent@1",
        "user@2",
        "agent@2",
        "get_order@2",
    ]
    assert trace.step("agent@3").input_text.endswith("get_order: pending\n\nagent:")
    assert trace.outputs == ("agent@1", "agent@2", "agent@3", "agent@4")
    assert [(each["step"], each["changed"]) for each in trace.task["actions"]] == [
        ("agent@2", False),
        ("agent@3", True),
    ]
    assert trace_from_line(trace_to_line(trace)) == trace
    assert tau_loss(trace).value == 0


def test_blame_passes_through_tools_to_the_calls(shop, lines):
    model = lines(call("get_order", "2"), call("cancel_order", "2"), "Done.")
    trace = run_episode(shop, 0, ScriptedUser(), agent_of(shop), model).trace
    (found,) = attribute([trace], episode_graph(shop, agent_of(shop)), {"m": model}, [tau_loss(trace)])
    assert found.gap == pytest.approx(0.0, abs=1e-9)
    edges = {(edge.source, edge.target): edge.credit for edge in found.edges}
    # Half of the loss is at the wrong call, half at what was not done, told by the last message.
    assert edges["agent@2", "loss"] == pytest.approx(1 / 3)
    assert edges["agent@3", "loss"] == pytest.approx(2 / 3)
    assert edges["agent@1", "get_order@1"] == pytest.approx(
        edges["get_order@1", "agent@2"] + edges["get_order@1", "agent@3"]
    )
    assert found.credit_of("user").own == pytest.approx(1.0)


def test_a_local_model_has_gradients(shop):
    model = tiny_local_model()
    agent = make_agent(shop, model="m", prompt="Serve.", max_new_tokens=6)
    trace = run_episode(shop, 0, ScriptedUser(["Hi.", "Well?"]), agent, model).trace
    assert [step.node for step in trace.steps] == ["user", "agent", "user", "agent", "user"]
    (found,) = attribute([trace], episode_graph(shop, agent), {"m": model}, [tau_loss(trace)])
    assert {edge.estimator for edge in found.edges if edge.kind == "message"} == {"gradient"}
    assert found.gap == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
def test_an_episode_goes_through_the_commands(shop, tmp_path):
    save_tiny_model(tmp_path / "model")
    model = LocalModel.load(LocalModelConfig(path=str(tmp_path / "model")))
    agent = make_agent(shop, model="m", prompt="Serve.", max_new_tokens=6)
    trace = run_episode(shop, 0, ScriptedUser(["Hi."]), agent, model).trace
    write_traces(tmp_path / "traces.jsonl", [trace])
    save_graph(tmp_path / "graph.yaml", episode_graph(shop, agent))
    (tmp_path / "models.yaml").write_text(f"m: {{path: {tmp_path / 'model'}}}")
    assert load_graph(tmp_path / "graph.yaml") == episode_graph(shop, agent)
    loss = "framework.gbc.environments.tau_bench.losses:tau_loss"
    files = {"graph": str(tmp_path / "graph.yaml"), "models": str(tmp_path / "models.yaml")}
    attribute_command(trace=str(tmp_path / "traces.jsonl"), loss=loss, out=str(tmp_path / "blame"), **files)
    (record,) = (tmp_path / "blame" / "attributions.jsonl").read_text().splitlines()
    assert {each["name"] for each in json.loads(record)["agents"]} >= {"agent", "user"}
    assert (tmp_path / "blame" / "blame.svg").stat().st_size


def test_the_prompt_has_policy_format_and_tools(shop):
    prompt = system_prompt(shop)
    assert prompt.startswith("Cancel pending orders only.\n\nTo call a tool")
    assert [json.loads(line)["name"] for line in prompt.splitlines()[-3:]] == ["get_order", "cancel_order", "hand_over"]
    assert make_agent(shop, model="m").prompt == prompt


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ('{"name": "get_order", "arguments": ', "malformed tool call"),
        ('{"tool": "get_order"}', "no name"),
        ('{"name": "get_order", "arguments": [1]}', "arguments are no object"),
        (
            '{"name": "refund"}',
            "a call of 'refund', which is not a tool: use one of cancel_order, get_order, hand_over",
        ),
        ('{"name": "respond"}', "a message to the user without content"),
        (call("get_order", "9"), r"the tool 'get_order' raised KeyError \('9'\)"),
        ('{"name": "get_order"}', "raised TypeError"),
        ("  ", "agent 'agent@2' says nothing"),
    ],
)
def test_what_ends_an_episode_as_failed(shop, lines, said, failure):
    model = lines(call("cancel_order", "1"), said)
    episode = run_episode(shop, 0, ScriptedUser(), agent_of(shop), model)
    assert re.search(failure, episode.trace.failure or "")
    # The database was right, yet a failed episode has no reward.
    assert (episode.reward.value, episode.reward.database) == (0.0, True)
    assert f"The episode failed: {episode.trace.failure}" in tau_loss(episode.trace).text
    assert trace_from_line(trace_to_line(episode.trace)) == episode.trace


def test_an_agent_that_repeats_itself_is_stopped(shop, lines):
    model = lines(*[call("get_order", "1")] * 5)
    episode = run_episode(shop, 0, ScriptedUser(), agent_of(shop), model, EpisodeOptions(max_turns=3))
    assert (episode.trace.failure or "").startswith("no end after 3 messages of the agent")
    assert len(model.lines) == 2
    with pytest.raises(ConfigError, match="max_turns 0"):
        EpisodeOptions(max_turns=0)


def test_a_tool_that_raises_may_be_told(shop, lines):
    model = lines(call("get_order", "9"), call("cancel_order", "1"), "Done.")
    options = EpisodeOptions(on_tool_error="tell")
    episode = run_episode(shop, 0, ScriptedUser(), agent_of(shop), model, options)
    assert (episode.trace.failure, episode.reward.value) == (None, 1.0)
    assert episode.trace.step("get_order@1").output == "Error: '9'"


def test_no_such_task(shop, lines):
    with pytest.raises(ConfigError, match="task 7"):
        run_episode(shop, 7, ScriptedUser(), agent_of(shop), lines())


def test_means(shop, lines):
    right = run_episode(shop, 0, ScriptedUser(), agent_of(shop), lines(call("cancel_order", "1"), "Done.")).trace
    wrong = run_episode(shop, 1, ScriptedUser(), agent_of(shop), lines(call("cancel_order", "2"), "Done.")).trace
    failed = run_episode(shop, 1, ScriptedUser(), agent_of(shop), lines("{")).trace
    found = mean_reward([right, wrong, failed])
    assert found == pytest.approx({"reward": 1 / 3, "database": 2 / 3, "outputs": 1 / 3, "failed": 1 / 3})
    assert mean_reward([]) == {}


@pytest.mark.parametrize(
    ("text", "action"),
    [
        (" Hello {you}. ", Action(name="respond", arguments={"content": "Hello {you}."})),
        ('{"name": "f", "arguments": {"a": 1}}', Action(name="f", arguments={"a": 1})),
        ('```json\n{"name": "f"}\n```', Action(name="f", arguments={})),
        ('I look.\n<tool_call>\n{"name": "f"}\n</tool_call>', Action(name="f", arguments={})),
    ],
)
def test_what_a_message_does(text, action):
    assert parse_actions(text) == (action,)


def test_a_tag_without_a_call():
    with pytest.raises(DataError, match="malformed"):
        parse_actions("<tool_call>f(1)</tool_call>")


def test_all_calls_of_a_message_are_done_in_their_order(shop, lines):
    model = lines("".join(f"<tool_call>{each}</tool_call>" for each in CALLS), "Done.")
    trace = run_episode(shop, 0, ScriptedUser(), agent_of(shop), model).trace
    assert trace.failure is None
    assert [step.name for step in trace.steps if step.kind == "tool"] == [
        "get_order@1",
        "cancel_order@1",
        "get_order@1.2",
    ]
    assert [step.output for step in trace.steps if step.kind == "tool"][::2] == ["pending", "cancelled"]
    assert {block.source for step in trace.steps if step.kind == "tool" for block in step.blocks} == {"agent@1"}
    assert [each["changed"] for each in trace.task["actions"]] == [False, True, False]
    assert trace_from_line(trace_to_line(trace)) == trace


def test_no_call_is_done_where_one_of_them_cannot_be(shop, lines):
    model = lines(f"{call('cancel_order', '1')}\n{call('refund', '1')}")
    trace = run_episode(shop, 0, ScriptedUser(), agent_of(shop), model).trace
    assert "a call of 'refund'" in (trace.failure or "")
    assert trace.task["actions"] == []
    model = lines(f'{{"name": "hand_over"}}\n{call("cancel_order", "1")}')
    trace = run_episode(shop, 0, ScriptedUser(), agent_of(shop), model).trace
    assert "1 calls after 'hand_over', which ends the conversation" in (trace.failure or "")


def test_thoughts_are_neither_done_nor_said(shop, lines):
    thought = f"<think>I could <tool_call>{call('cancel_order', '1')}</tool_call></think>"
    model = lines(f"{thought} Which order?", f"{thought[7:]} Well?", "<think>Hm")
    user = HeardUser(["Cancel it.", "The first.", "Yes."])
    trace = run_episode(shop, 0, user, agent_of(shop), model).trace
    assert user.heard == ["Which order?", "Well?"]
    assert trace.task["actions"] == []
    assert "the agent thinks and says nothing: raise its max_new_tokens" in (trace.failure or "")


def test_half_of_a_character_ends_an_episode_with_the_reason(shop, lines):
    said = '{"name": "get_order", "arguments": {"order_id": "\\ud83d"}}'
    trace = run_episode(shop, 0, ScriptedUser(), agent_of(shop), lines(said)).trace
    assert "half of a character" in (trace.failure or "")
    trace = run_episode(shop, 0, ScriptedUser(["x \ud83d"]), agent_of(shop), lines("Hello.")).trace
    assert "'user' says half of a character" in (trace.failure or "")


class HeardUser(ScriptedUser):
    """Keeps what it is told."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines)
        self.heard: list[str] = []

    def step(self, content: str) -> str:
        self.heard.append(content)
        return super().step(content)
