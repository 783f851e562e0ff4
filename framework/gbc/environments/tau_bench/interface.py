"""What tau-bench and tau2-bench have in common: tasks, actions, users, rewards, conversations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from framework.core.serialization import JsonDict

Actor = Literal["agent", "user"]
Part = Literal["database", "outputs", "assertions", "actions", "judged"]
"""A part of a reward."""

RESPOND = "respond"
"""The name that a message to the user has among the actions."""
STOP = "###STOP###"
"""What a user says to end the conversation."""
GREETING = "Hello. How can I help you?"
"""What a user's simulator hears first."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """A tool call, or with the name `respond` a message to the user, whose `content` it has.

    Attributes:
        name: of the tool.
        arguments: by name, JSON values.
        by: whose tool it is; users have tools in tau2-bench alone.
        compared: of an expected action, the arguments that must be equal; all where it is None.
    """

    name: str
    arguments: JsonDict
    by: Actor = "agent"
    compared: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class TauTask:
    """A task of the package.

    Attributes:
        index: in its split.
        instruction: what the user wants; for the user's simulator only.
        actions: the right ones; the database that they leave is the right one.
        outputs: texts that the agent must have told the user.
    """

    index: int
    instruction: str
    actions: tuple[Action, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class UserCall:
    """A call of one of the user's own tools, which the agent does not see.

    Attributes:
        action: the call.
        text: the tool's result.
        changed: whether the database is another than before.
    """

    action: Action
    text: str
    changed: bool


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What the user says, and what it did before.

    Attributes:
        text: its message.
        calls: of its own tools.
    """

    text: str
    calls: tuple[UserCall, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What an action led to.

    Attributes:
        text: the tool's result, or what the user said.
        done: whether the conversation is over.
        changed: whether the database is another than before.
        raised: the exception of the tool, which the package only writes into the text; None where it returned, and in
            tau2-bench, whose tools refuse by raising.
        user_calls: what the user did before it answered.
    """

    text: str
    done: bool
    changed: bool
    raised: str | None = None
    user_calls: tuple[UserCall, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TauReward:
    """The reward of an episode and its parts.

    Attributes:
        value: 1 if all parts of the basis are fulfilled, otherwise 0.
        database: whether the database is the one that the task's own actions leave.
        outputs: by text, whether it was told.
        assertions: of the environment at the end, by what they call, whether they hold.
        actions: whether all expected actions were taken.
        judged: by text, whether a judge finds that it holds; None where nobody was asked.
        basis: the parts that count.
    """

    value: float
    database: bool
    outputs: dict[str, bool] = field(default_factory=dict[str, bool])
    assertions: dict[str, bool] = field(default_factory=dict[str, bool])
    actions: bool | None = None
    judged: dict[str, bool | None] = field(default_factory=dict[str, bool | None])
    basis: tuple[Part, ...] = ("database", "outputs")


@runtime_checkable
class User(Protocol):
    """A user's simulator: the interface of tau-bench's package."""

    def reset(self, instruction: str | None = None) -> str:
        """Begins a conversation; the user's first message."""
        ...

    def step(self, content: str) -> str:
        """The answer to the agent's message; with `STOP` in it the conversation is over."""
        ...

    def get_total_cost(self) -> float:
        """Of the model, in dollars."""
        ...


@runtime_checkable
class UserWithTools(User, Protocol):
    """A user's simulator that can call tools of its own: a message that is a call in JSON is one."""

    def read_results(self, results: Sequence[str]) -> str:
        """The next message or calls, after the results of its calls in their order."""
        ...


@runtime_checkable
class TauConversations(Protocol):
    """A domain of a benchmark; conversations one after the other.

    Attributes:
        name: for ids of episodes, such as `retail/test`.
    """

    name: str

    def __len__(self) -> int: ...

    @property
    def tools(self) -> list[JsonDict]:
        """The agent's tools as JSON schemas, in the form of OpenAI's functions."""
        ...

    @property
    def user_tools(self) -> list[JsonDict]:
        """The user's own tools, likewise."""
        ...

    @property
    def policy(self) -> str:
        """The rules that an agent must follow."""
        ...

    def task(self, index: int) -> TauTask:
        """A task; ConfigError where there is none."""
        ...

    def start(self, index: int, user: User) -> Heard:
        """Begins a task with a fresh database; the user's first message."""
        ...

    def act(self, action: Action) -> Observation:
        """Calls a tool, or says something to the user."""
        ...

    def reward(self, *, failed: bool = False) -> TauReward:
        """Of the episode so far: of one that is not done or has failed 0, and nobody is asked to judge it."""
        ...


def replay(bench: TauConversations, index: int, user: User, actions: Sequence[Action] | None = None) -> TauReward:
    """The reward of a task's own actions, with all its outputs told to the user at the end.

    Args:
        bench: the environment.
        index: of the task.
        user: its next message must end the conversation, such as that of `ScriptedUser`.
        actions: others in place of the task's own.
    """
    task = bench.task(index)
    bench.start(index, user)
    done = False
    for action in task.actions if actions is None else actions:
        done = done or bench.act(action).done
    if not done:
        bench.act(Action(name=RESPOND, arguments={"content": " ".join(task.outputs) or "Done."}))
    return bench.reward()
