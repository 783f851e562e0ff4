"""An episode of tau-bench or tau2-bench as a trace: an agent that talks to a user and calls tools, turn by turn.

Every message is a step: `user@1`, `agent@1`, and of tools `get_order_details@1`, numbered by the agent's message that
called them (`get_order_details@1.2` is the second call of it there). The agent reads all that was said; a tool reads
the call. No gradient flows through tools and users: credit passes through a tool to the call, and ends at the user. All
messages of the agent are outputs of the system, since each may change the database or tell what must be told.

In tau2-bench's telecom the user calls tools of its own. They are steps too, which the agent does not read: what the
user calls is `user@2`, the result `toggle_data@2`, and what it then says `user@2.2`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.core.random.seeding import seed_of
from framework.core.serialization import JsonDict, to_json
from framework.core.text_files import half_character_in
from framework.gbc.environments.tau_bench.interface import (
    RESPOND,
    Action,
    Heard,
    TauConversations,
    TauReward,
    User,
)
from framework.gbc.graph.spec import Agent, Graph, Tool, UserTurn
from framework.gbc.graph.trace import Step, Trace, given_step, message_block
from framework.gbc.language_models.interface import LanguageModel, Piece, Reply, Request
from framework.gbc.language_models.tool_calls.parsing import parse_tool_calls
from framework.gbc.language_models.tool_calls.thoughts import without_thoughts

AGENT, USER = "agent", "user"

FORMAT = """To call a tool, answer with one JSON object and nothing else: {"name": "TOOL", "arguments": {...}}. \
Anything else that you write is said to the user. Call one tool at a time. The tools:"""


@dataclass(frozen=True, kw_only=True)
class EpisodeOptions:
    """How an episode runs.

    Args:
        max_turns: most messages of the agent, tool calls included; the published runs of tau-bench allow 30, those of
            tau2-bench 200 of all messages.
        on_tool_error: a tool that raises ends the episode as failed, or the agent is told (published). By default
            `fail` in tau-bench; in tau2-bench, whose tools refuse by raising, the agent is always told.
        seed: of the model's random numbers, with the task and the step.
    """

    max_turns: int = 30
    on_tool_error: Literal["fail", "tell"] = "fail"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_turns < 1:
            raise ConfigError(f"max_turns {self.max_turns}", hint="use 1 or more")


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One conversation.

    Attributes:
        trace: its steps; the task holds what was expected, what was done, and the reward.
        reward: with its parts; the value of a failed episode is 0.
    """

    trace: Trace
    reward: TauReward


def system_prompt(bench: TauConversations) -> str:
    """The policy, how to call tools, and the tools' schemas."""
    tools = "\n".join(json.dumps(tool["function"]) for tool in bench.tools)
    return f"{bench.policy.strip()}\n\n{FORMAT}\n{tools}"


def episode_graph(bench: TauConversations, agent: Agent) -> Graph:
    """The nodes of an episode's trace, for `attribute`."""
    readers: dict[str, tuple[str, ...]] = {tool["function"]["name"]: (agent.name,) for tool in bench.tools}
    for tool in bench.user_tools:
        name = tool["function"]["name"]
        readers[name] = (*readers.get(name, ()), USER)
    return Graph(
        agents=(agent,),
        tools=tuple(Tool(name=name, reads=reads, function=_live) for name, reads in readers.items()),
        users=(UserTurn(name=USER),),
        outputs=(agent.name,),
    )


def make_agent(bench: TauConversations, *, model: str, prompt: str | None = None, max_new_tokens: int = 512) -> Agent:
    """The agent of an episode; its prompt is by default `system_prompt`.

    Args:
        bench: with its tools and rules.
        model: name of the agent's model.
        prompt: in place of the domain's rules.
        max_new_tokens: of an answer, at most.
    """
    text = system_prompt(bench) if prompt is None else prompt
    return Agent(name=AGENT, prompt=text, model=model, reads=(), role="serves the user", max_new_tokens=max_new_tokens)


def run_episode(
    bench: TauConversations,
    index: int,
    user: User,
    agent: Agent,
    model: LanguageModel,
    options: EpisodeOptions = EpisodeOptions(),
) -> Episode:
    """Runs a task to its end.

    A malformed tool call, a call of no tool that there is, a tool that raises, an agent that says nothing or does not
    come to an end, and an error of a model end the episode: the trace has its `failure`.

    Args:
        bench: the domain.
        index: of the task.
        user: the simulated user.
        agent: of the graph.
        model: that answers for the agent.
        options: bounds of the run.

    Raises:
        ConfigError: no such task.
    """
    task = bench.task(index)
    run = _Run(bench, f"{bench.name}/{index}", agent, model, options)
    failure = None
    try:
        run.hear(bench.start(index, user))
        run.talk()
        reward = bench.reward()
    except ConfigError:
        raise
    except FrameworkError as error:
        failure = str(error)
        reward = bench.reward(failed=True)
    values: JsonDict = {
        "id": run.id,
        "instruction": task.instruction,
        "expected_actions": [to_json(action) for action in task.actions],
        "expected_outputs": list(task.outputs),
        "actions": run.actions,
        "reward": to_json(reward),
        "failure": failure,
    }
    outputs = tuple(step.name for step in run.steps if step.node == agent.name)
    trace = Trace(id=run.id, task=values, steps=tuple(run.steps), skipped=(), outputs=outputs, failure=failure)
    return Episode(trace=trace, reward=reward)


def parse_actions(text: str) -> tuple[Action, ...]:
    """What the agent's message does: the calls in it, in their order, or else what it says to the user.

    Raises:
        DataError: it begins like a call and is none, or thinks and says nothing.
    """
    calls = parse_tool_calls(text)
    if calls:
        return tuple(Action(name=call.name, arguments=call.arguments) for call in calls)
    said = without_thoughts(text)
    if not said:
        raise DataError("the agent thinks and says nothing", hint="raise its max_new_tokens, or turn its thoughts off")
    return (Action(name=RESPOND, arguments={"content": said}),)


class _Run:
    """One conversation as it goes."""

    def __init__(
        self, bench: TauConversations, id: str, agent: Agent, model: LanguageModel, options: EpisodeOptions
    ) -> None:
        self.bench, self.id, self.agent, self.model, self.options = bench, id, agent, model, options
        self.known = {tool["function"]["name"] for tool in bench.tools}
        self.steps: list[Step] = []
        self.private: set[str] = set()
        self.actions: list[JsonDict] = []

    def talk(self) -> None:
        """Lets the agent act until the conversation is over; DataError says why it ends before."""
        for turn in range(1, self.options.max_turns + 1):
            step = self._ask(turn)
            self.steps.append(step)
            actions = parse_actions(step.output)
            # Before any of them is done.
            for action in actions:
                self._check(action)
            for number, action in enumerate(actions, 1):
                if self._act(action, step, turn):
                    if number < len(actions):
                        problem = f"{len(actions) - number} calls after {action.name!r}, which ends the conversation"
                        raise DataError(problem, hint="call one tool at a time")
                    return
        problem = f"no end after {self.options.max_turns} messages of the agent"
        raise DataError(problem, hint="see whether it repeats itself, or raise max_turns")

    def _check(self, action: Action) -> None:
        if action.name == RESPOND:
            if not isinstance(action.arguments.get("content"), str):
                raise DataError("a message to the user without content", hint="write the message itself")
        elif action.name not in self.known:
            hint = f"use one of {', '.join(sorted(self.known))}"
            raise DataError(f"a call of {action.name!r}, which is not a tool", hint=hint)

    def _act(self, action: Action, step: Step, turn: int) -> bool:
        """Does what the agent wants; whether the conversation is over."""
        seen = self.bench.act(action)
        if action.name == RESPOND:
            self.hear(Heard(text=seen.text, calls=seen.user_calls), turn + 1)
        else:
            self._did(action, step.name, changed=seen.changed)
            self._keep(f"{action.name}@{turn}", action.name, "tool", seen.text, step)
        if seen.raised is not None and self.options.on_tool_error == "fail":
            raise DataError(f"the tool {action.name!r} raised {seen.raised}", hint="see the call's arguments")
        return seen.done

    def hear(self, heard: Heard, turn: int = 1) -> None:
        """Keeps what the user does and says before the agent's message number `turn`."""
        for each in heard.calls:
            action = each.action
            said = json.dumps({"name": action.name, "arguments": action.arguments})
            call = self._keep(f"{USER}@{turn}", USER, "user", said)
            result = self._keep(f"{action.name}@{turn}", action.name, "tool", each.text, call)
            self.private |= {call.name, result.name}
            asked = [step.name for step in self.steps if step.node == self.agent.name]
            self._did(action, asked[-1] if asked else call.name, changed=each.changed)
        self._keep(f"{USER}@{turn}", USER, "user", heard.text)

    def _did(self, action: Action, step: str, *, changed: bool) -> None:
        """Keeps a call; of the user's, `step` is the agent's message before."""
        self.actions.append({"step": step, **to_json(action), "changed": changed})

    def _ask(self, turn: int) -> Step:
        name = f"{self.agent.name}@{turn}"
        pieces: list[Piece] = []
        for step in self.steps:
            if step.name in self.private:
                continue
            pieces += [Piece(text=f"{step.node}: "), Piece(text=step.output, source=step.name), Piece(text="\n\n")]
        request = Request(
            step=name,
            prompt=self.agent.prompt,
            pieces=(*pieces, Piece(text=f"{self.agent.name}:")),
            max_new_tokens=self.agent.max_new_tokens,
            stop=self.agent.stop,
            seed=seed_of(self.options.seed, self.id, name),
        )
        (reply,) = self.model.reply([request])
        if not isinstance(reply, Reply):
            raise reply
        if not reply.output.strip():
            raise DataError(f"agent {name!r} says nothing", hint="change its prompt or its model")
        fields = {each: getattr(reply, each) for each in _REPLY}
        return Step(name=name, node=self.agent.name, kind="agent", model=self.agent.model, controls=(), **fields)

    def _keep(self, name: str, node: str, kind: Literal["user", "tool"], text: str, call: Step | None = None) -> Step:
        if (found := half_character_in(text)) is not None:
            raise DataError(f"{node!r} says {found}", hint="see where its text comes from")
        taken = {step.name for step in self.steps}
        # Of two calls of a tool in one message, or of what a user does and says.
        name = next(
            each for each in (name, *(f"{name}.{count}" for count in range(2, len(taken) + 3))) if each not in taken
        )
        said = "" if call is None else call.output.strip()
        blocks = (message_block(call.name, said),) if call else ()
        step = given_step(name, node=node, kind=kind, output=text, input_text=said, blocks=blocks)
        self.steps.append(step)
        return step


_REPLY = ("input_text", "input_ids", "input_spans", "blocks", "output", "output_ids", "output_spans", "finish")
"""Fields that a step takes from a reply."""


def _live(texts: Mapping[str, str]) -> str:
    raise DataError("a tool of an episode needs its database", hint="run an episode; leave_one_out cannot run it again")
