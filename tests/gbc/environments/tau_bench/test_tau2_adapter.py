"""tau2-bench: both sides act, the reward by its basis; every task of the real package where it is installed."""

import json

import pytest

from framework.core.errors import ConfigError, DataError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.environments.tau_bench.episode import EpisodeOptions, episode_graph, run_episode, system_prompt
from framework.gbc.environments.tau_bench.interface import RESPOND, STOP, Action, Heard, TauReward, replay
from framework.gbc.environments.tau_bench.losses import mean_reward, tau_loss
from framework.gbc.environments.tau_bench.simulators import ModelUser, ScriptedUser
from framework.gbc.environments.tau_bench.tau2_adapter import MOST_USER_CALLS
from framework.gbc.graph.spec import Agent
from framework.gbc.graph.trace import trace_from_line, trace_to_line

AGENT = Agent(name="agent", prompt="Serve.", model="m", reads=(), estimator="pass_through")
RESTART = json.dumps({"name": "restart_router", "arguments": {}})
LOOK = json.dumps({"name": "look", "arguments": {}})


def say(text: str) -> Action:
    return Action(name=RESPOND, arguments={"content": text})


def open_line(line: str) -> str:
    return json.dumps({"name": "open_line", "arguments": {"line": line}})


@pytest.mark.parametrize(
    ("task", "actions", "broken"),
    [
        (0, [Action(name="open_line", arguments={"line": "2"}), say("42")], "database"),
        (0, [Action(name="open_line", arguments={"line": "1"}), say("41")], "outputs"),
        (1, [say("Restart it.")], "assertions"),
        (2, [say("no")], "database"),
    ],
)
def test_a_wrong_action_gives_nothing(house, task, actions, broken):
    reward = replay(house, task, ScriptedUser(), actions)
    assert reward.value == 0
    part = getattr(reward, broken)
    assert part is False or not all(part.values())


def test_assertions_in_words_count_where_somebody_judges_them(house, judged_house):
    reward = replay(house, 2, ScriptedUser())
    assert (reward.value, reward.judged, reward.basis) == (1.0, {"The agent is kind.": None}, ("database", "judged"))
    own = house.task(2).actions
    rude, kind = (replay(judged_house, 2, ScriptedUser(), [*own, say(text)]) for text in ("Done.", "Done, please."))
    assert (rude.value, rude.judged) == (0.0, {"The agent is kind.": False})
    assert (kind.value, kind.judged) == (1.0, {"The agent is kind.": True})
    # Nobody is asked about what has failed.
    assert judged_house.reward(failed=True).judged == {"The agent is kind.": None}


def test_what_changed_and_what_is_refused(house):
    assert house.start(0, ScriptedUser(["Hi."])) == Heard(text="Hi.")
    seen = [
        house.act(Action(name=name, arguments={"line": line}))
        for name, line in (("find_line", "1"), ("open_line", "1"), ("open_line", "1"), ("open_line", "9"))
    ]
    assert [(each.text, each.changed, each.raised) for each in seen] == [
        ("closed", False, None),
        ("opened", True, None),
        ("opened", False, None),
        ("Error: no such line", False, None),
    ]
    assert house.reward() == TauReward(
        value=0.0, database=True, outputs={"42": False}, actions=True, basis=("database", "outputs")
    )
    assert house.act(say("42")).done
    assert house.reward().value == 1
    assert house.reward(failed=True).value == 0


def test_a_user_that_acts_is_a_part_of_the_trace_that_the_agent_does_not_read(house, lines):
    model = lines("Restart it.", "And now?")
    user = ScriptedUser([LOOK, "It is dark.", RESTART, LOOK, "Done, it is green."])
    trace = run_episode(house, 1, user, AGENT, model).trace
    assert trace.failure is None
    assert [(step.name, step.output) for step in trace.steps] == [
        ("user@1", LOOK),
        ("look@1", "the light is red"),
        ("user@1.2", "It is dark."),
        ("agent@1", "Restart it."),
        ("user@2", RESTART),
        ("restart_router@2", "restarted"),
        ("user@2.2", LOOK),
        ("look@2", "the light is green"),
        ("user@2.3", "Done, it is green."),
        ("agent@2", "And now?"),
        ("user@3", STOP),
    ]
    assert [block.source for block in trace.step("agent@2").messages] == ["user@1.2", "agent@1", "user@2.3"]
    assert [(each["name"], each["by"], each["step"], each["changed"]) for each in trace.task["actions"]] == [
        ("look", "user", "user@1", False),
        ("restart_router", "user", "agent@1", True),
        ("look", "user", "agent@1", False),
    ]
    assert trace.task["reward"]["value"] == 1
    assert trace_from_line(trace_to_line(trace)) == trace
    assert tau_loss(trace).value == 0


def test_what_is_wrong_is_told_and_attributed(house, lines):
    model = lines(open_line("1"), "Look at it.")
    trace = run_episode(house, 1, ScriptedUser(["It is dark.", LOOK, "Red."]), AGENT, lines(*model.lines, "Hm.")).trace
    loss = tau_loss(trace)
    # The database does not count in this task.
    assert loss.text == (
        "At the end it does not hold that look({}) is the light is green. "
        "Expected restart_router({}) by the user, it was not taken (false negative)."
    )
    assert [(place.step, place.weight) for place in loss.places] == [("agent@3", 1.0)]
    (found,) = attribute([trace], episode_graph(house, AGENT), {"m": lines()}, [loss])
    assert found.gap == pytest.approx(0.0, abs=1e-9)
    assert mean_reward([trace]) == {"reward": 0, "assertions": 0, "actions": 0, "failed": 0}


def test_what_a_user_did_wrong_is_placed_at_what_it_was_told(house, lines):
    user = ScriptedUser(["Closed.", RESTART, "Did it."])
    # The router works, so that a restart changes nothing: only the open line of the house is wrong.
    trace = run_episode(house, 2, user, AGENT, lines("Restart.", open_line("1"), "Bye.")).trace
    loss = tau_loss(trace)
    assert 'open_line({"line": "1"}) changed the database but was not expected' in loss.text
    assert 'Expected open_line({"line": "2"}), it was not taken' in loss.text
    assert [place.step for place in loss.places] == ["agent@2", "agent@3"]


def test_a_model_plays_the_user_with_its_tools(house, lines):
    user_model = lines("It is dark.", RESTART, "Done.", STOP)
    user = ModelUser(user_model, prompt=house.user_prompt)
    trace = run_episode(house, 1, user, AGENT, lines("Restart it.", "Fine.")).trace
    assert trace.task["reward"]["value"] == 1
    asked = user_model.asked
    assert asked[0].prompt.startswith(
        "Play a customer.\n\nYou want your line back.\n\nYou can do these things yourself"
    )
    assert [json.loads(line)["name"] for line in asked[0].prompt.splitlines()[-2:]] == ["restart_router", "look"]
    assert asked[2].message.endswith(f"agent: Restart it.\nyou: {RESTART}\ntool: restarted\nyou:")
    # Of a task without tools for the user, its words say nothing of them, and JSON is but words.
    assert house.start(0, ScriptedUser([RESTART])) == Heard(text=RESTART)


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (['{"name": "open_line"}'], "the user calls 'open_line', which is not one of its tools: use one of look"),
        (['{"name": "look", "arguments": '], "the user's message: malformed tool call"),
        ([LOOK] * (MOST_USER_CALLS + 1), f"the user calls more than {MOST_USER_CALLS} tools and says nothing"),
    ],
)
def test_users_that_do_not_come_to_a_point(house, lines, said, failure):
    episode = run_episode(house, 1, ScriptedUser(said), AGENT, lines())
    assert failure in (episode.trace.failure or "")
    assert episode.reward.value == 0


def test_a_user_without_tools_of_its_own_is_told_what_it_lacks(house):
    class Plain:
        def reset(self, instruction: str | None = None) -> str:
            return LOOK

        def step(self, content: str) -> str:
            return STOP

        def get_total_cost(self) -> float:
            return 0.0

    with pytest.raises(DataError, match="a user of type Plain calls 'look': give it a method read_results"):
        house.start(1, Plain())
    assert house.start(0, Plain()) == Heard(text=LOOK)


def test_the_prompt_has_the_agents_tools_alone(house):
    names = [json.loads(line)["name"] for line in system_prompt(house).splitlines()[-2:]]
    assert names == ["find_line", "open_line"]
    assert [tool["function"]["name"] for tool in house.user_tools] == ["restart_router", "look"]


def test_other_ends_and_an_agent_that_goes_on(house, lines):
    trace = run_episode(house, 2, ScriptedUser(["Hi.", "###TRANSFER###"]), AGENT, lines(open_line("2"), "Bye.")).trace
    assert (trace.failure, trace.task["reward"]["value"]) == (None, 1)
    endless = run_episode(house, 2, ScriptedUser(), AGENT, lines(*[open_line("2")] * 2), EpisodeOptions(max_turns=2))
    assert "no end after 2 messages" in (endless.trace.failure or "")
    assert (endless.reward.value, endless.reward.database) == (0.0, True)


def test_no_such_task(house):
    with pytest.raises(ConfigError, match="task 4 of house/base: use 0 to 3"):
        house.start(4, ScriptedUser())
    with pytest.raises(ConfigError, match="begins in the middle of a conversation"):
        house.start(3, ScriptedUser())
    with pytest.raises(ConfigError, match="no task has begun: call start first"):
        house.reward()
