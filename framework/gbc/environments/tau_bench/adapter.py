"""tau-bench (Yao et al. 2024, arXiv 2406.12045): retail and airline, by the authors' package `tau_bench`.

The package is not on PyPI and is imported only when an environment is asked for. Tools, databases, tasks and the reward
are the package's own; what this adapter adds is which tool raised, which call changed the database, and both parts of
the reward (the package keeps one of them).
"""

import importlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol, get_args, runtime_checkable

from framework.core.errors import ConfigError
from framework.core.serialization import JsonDict
from framework.gbc.environments.tau_bench.interface import (
    Action,
    Heard,
    Observation,
    TauReward,
    TauTask,
    User,
)

Domain = Literal["retail", "airline"]
Split = Literal["test", "train", "dev"]

INSTALL = "pip install git+https://github.com/sierra-research/tau-bench"


@runtime_checkable
class _Tool(Protocol):
    def invoke(self, *args: object, **kwargs: object) -> object: ...


@runtime_checkable
class _PackageAction(Protocol):
    name: str
    kwargs: JsonDict


@runtime_checkable
class _PackageTask(Protocol):
    instruction: str
    actions: Sequence[_PackageAction]
    outputs: Sequence[str]


@runtime_checkable
class _RewardResult(Protocol):
    reward: float
    info: object


@runtime_checkable
class _Info(Protocol):
    reward_info: _RewardResult


@runtime_checkable
class _Response(Protocol):
    observation: str
    done: bool
    info: _Info


@runtime_checkable
class _Env(Protocol):
    """What is used of the package's `Env`."""

    user: User
    tools_map: dict[str, _Tool]
    tools_info: Sequence[JsonDict]
    terminate_tools: Collection[str]
    tasks: Sequence[_PackageTask]
    wiki: str

    def reset(self, *, task_index: int) -> _Response: ...

    def step(self, action: object) -> _Response: ...

    def calculate_reward(self) -> _RewardResult: ...

    def get_data_hash(self) -> str: ...


class TauBench:
    """One environment of the package; conversations one after the other.

    Args:
        env: the package's `Env`, or anything with its interface.
        action: the package's `Action` class, called with `name` and `kwargs`.
        name: for ids of episodes, such as `retail/test`.
    """

    def __init__(self, env: _Env, action: Callable[..., object], *, name: str) -> None:
        self.name = name
        self._env, self._action = env, action
        self._raised: list[str] = []
        env.tools_map = {tool: _Watched(each, self._raised) for tool, each in env.tools_map.items()}
        self._reward: TauReward | None = None
        self._hash = self._fresh = ""

    def __len__(self) -> int:
        """The number of tasks of the split."""
        return len(self._env.tasks)

    def task(self, index: int) -> TauTask:
        """A task of the split.

        Raises:
            ConfigError: no such task.
        """
        if not 0 <= index < len(self):
            raise ConfigError(f"task {index} of {self.name}", hint=f"use 0 to {len(self) - 1}")
        task = self._env.tasks[index]
        actions = tuple(Action(name=each.name, arguments=dict(each.kwargs)) for each in task.actions)
        return TauTask(index=index, instruction=task.instruction, actions=actions, outputs=tuple(task.outputs))

    @property
    def tools(self) -> list[JsonDict]:
        """The tools as JSON schemas, in the form of OpenAI's functions."""
        return list(self._env.tools_info)

    @property
    def user_tools(self) -> list[JsonDict]:
        """None: users of tau-bench only talk."""
        return []

    @property
    def policy(self) -> str:
        """The rules that an agent must follow: the package's wiki."""
        return str(self._env.wiki)

    def start(self, index: int, user: User) -> Heard:
        """Begins a task with a fresh database; the user's first message.

        Raises:
            ConfigError: no such task.
        """
        self._env.user = user
        self._reward = None
        text = self._env.reset(task_index=self.task(index).index).observation
        # Of the same files every time, and slow.
        self._fresh = self._fresh or self._env.get_data_hash()
        self._hash = self._fresh
        return Heard(text=str(text))

    def act(self, action: Action) -> Observation:
        """Calls a tool, or says something to the user; an unknown tool is told in the observation."""
        before = self._hash
        is_call = action.name in self._env.tools_map and action.name not in self._env.terminate_tools
        self._raised.clear()
        response = self._env.step(self._action(name=action.name, kwargs=action.arguments))
        raised = self._raised[-1] if self._raised and is_call else None
        if is_call:
            self._hash = self._env.get_data_hash()
        if response.done:
            # The package has put the right database in the place of this one.
            self._reward = self._judged(response.info.reward_info)
        return Observation(
            text=str(response.observation), done=bool(response.done), changed=self._hash != before, raised=raised
        )

    def reward(self, *, failed: bool = False) -> TauReward:
        """Of the episode so far; one that is not done or has failed has the value 0, as the package's runs have it."""
        if self._reward is None:
            self._reward = replace(self._judged(self._env.calculate_reward()), value=0.0)
        return replace(self._reward, value=0.0) if failed else self._reward

    def _judged(self, result: _RewardResult) -> TauReward:
        outputs: Mapping[str, bool] = getattr(result.info, "outputs", {})
        database = self._env.get_data_hash() == self._hash
        return TauReward(value=float(result.reward), database=database, outputs=dict(outputs))


class _Watched:
    """A tool that leaves word when it raises."""

    def __init__(self, tool: _Tool, raised: list[str]) -> None:
        self._tool, self._raised = tool, raised

    def __getattr__(self, name: str) -> object:
        return getattr(self._tool, name)

    def invoke(self, *args: object, **kwargs: object) -> object:
        try:
            return self._tool.invoke(*args, **kwargs)
        except Exception as error:
            self._raised.append(f"{type(error).__name__} ({error})")
            raise


def load_tau_bench(domain: Domain, split: Split = "test") -> TauBench:
    """The environment of a domain.

    Raises:
        ConfigError: the package is missing, or has no such domain or split.
    """
    if domain not in get_args(Domain):
        raise ConfigError(f"domain {domain!r}", hint=f"use one of {', '.join(get_args(Domain))}")
    if domain == "airline" and split != "test":
        raise ConfigError(f"airline has no split {split!r}", hint="use test")
    try:
        envs = importlib.import_module("tau_bench.envs")
        types = importlib.import_module("tau_bench.types")
    except ImportError as error:
        raise ConfigError(f"tau-bench cannot be imported ({error})", hint=INSTALL) from error
    # Its user is replaced when an episode starts; the others ask a model already when they are made.
    env = envs.get_env(domain, user_strategy="human", user_model="", task_split=split, task_index=0)
    return TauBench(env, types.Action, name=f"{domain}/{split}")
