"""The package `tau2` (Barres et al. 2025, arXiv 2506.07982): what is used of it, and how it is imported.

It is imported only when a domain is asked for. Environments, tasks and evaluators are the package's own.
"""

import importlib
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Literal, Protocol, get_args, runtime_checkable

from framework.core.errors import ConfigError, DataError
from framework.core.serialization import JsonDict
from framework.gbc.language_models.interface import LanguageModel, Piece, Reply, Request
from framework.gbc.language_models.tool_calls.thoughts import without_thoughts

Tau2Domain = Literal["retail", "airline", "telecom", "telecom-workflow"]

INSTALL = "git clone https://github.com/sierra-research/tau2-bench, then pip install -e tau2-bench (Python 3.12)"
JUDGED = "NL_ASSERTION"
"""The name of the part of a reward that takes a language model."""


@runtime_checkable
class PackageTool(Protocol):
    """What is used of the package's `Tool`."""

    @property
    def openai_schema(self) -> JsonDict: ...


@runtime_checkable
class ToolKit(Protocol):
    """What is used of the package's `ToolKitBase`."""

    def tool_mutates_state(self, tool_name: str) -> bool: ...

    def has_tool(self, tool_name: str) -> bool: ...


@runtime_checkable
class PackageMessage(Protocol):
    """What is used of the package's messages."""

    content: str | None


@runtime_checkable
class Environment(Protocol):
    """What is used of the package's `Environment`."""

    tools: ToolKit | None
    user_tools: ToolKit | None

    def get_policy(self) -> str: ...

    def get_tools(self) -> Sequence[PackageTool]: ...

    def get_user_tools(self, include: list[str] | None = None) -> Sequence[PackageTool]: ...

    def set_state(
        self, initialization_data: object, initialization_actions: object, message_history: list[object]
    ) -> None:
        """Brings the databases into a state.

        Args:
            initialization_data: in place of what the databases hold; None: nothing.
            initialization_actions: calls that are made; None: none.
            message_history: messages whose calls are made again.
        """
        ...

    def get_response(self, message: object) -> PackageMessage: ...

    def get_db_hash(self) -> str | None: ...

    def get_user_db_hash(self) -> str | None: ...


@runtime_checkable
class PackageAction(Protocol):
    """What is used of the package's `Action`."""

    name: str
    arguments: JsonDict
    requestor: str
    compare_args: list[str] | None


@runtime_checkable
class RewardType(Protocol):
    """What is used of the package's `RewardType`."""

    @property
    def value(self) -> str: ...


@runtime_checkable
class Criteria(Protocol):
    """What is used of the package's `EvaluationCriteria`."""

    actions: Sequence[PackageAction] | None
    communicate_info: Sequence[str] | None
    nl_assertions: Sequence[str] | None
    reward_basis: Sequence[RewardType]

    def model_copy(self, *, update: Mapping[str, object]) -> "Criteria": ...


@runtime_checkable
class InitialState(Protocol):
    """What is used of the package's `InitialState`."""

    initialization_data: object
    initialization_actions: object
    message_history: Sequence[object] | None


@runtime_checkable
class PackageTask(Protocol):
    """What is used of the package's `Task`."""

    id: str
    user_scenario: object
    user_tools: list[str] | None
    initial_state: InitialState | None
    evaluation_criteria: Criteria | None

    def model_copy(self, *, update: Mapping[str, object]) -> "PackageTask": ...


@runtime_checkable
class EnvAssertion(Protocol):
    """What is used of the package's `EnvAssertion`."""

    func_name: str
    arguments: JsonDict
    assert_value: bool


@runtime_checkable
class DBCheck(Protocol):
    """What is used of the package's `DBCheck`."""

    db_match: bool


@runtime_checkable
class EnvAssertionCheck(Protocol):
    """What is used of the package's `EnvAssertionCheck`."""

    env_assertion: EnvAssertion
    met: bool


@runtime_checkable
class ActionCheck(Protocol):
    """What is used of the package's `ActionCheck`."""

    action_match: bool


@runtime_checkable
class CommunicateCheck(Protocol):
    """What is used of the package's `CommunicateCheck`."""

    info: str
    met: bool


@runtime_checkable
class NLAssertionCheck(Protocol):
    """What is used of the package's `NLAssertionCheck`."""

    nl_assertion: str
    met: bool


@runtime_checkable
class RewardInfo(Protocol):
    """What is used of the package's `RewardInfo`."""

    reward: float
    db_check: DBCheck | None
    env_assertions: Sequence[EnvAssertionCheck] | None
    action_checks: Sequence[ActionCheck] | None
    communicate_checks: Sequence[CommunicateCheck] | None
    nl_assertions: Sequence[NLAssertionCheck] | None


@dataclass(frozen=True, kw_only=True)
class Messages:
    """The package's constructors of messages, by keywords.

    Attributes:
        assistant: of what the agent says and calls.
        user: of what the user says and calls.
        call: of a tool call in either.
    """

    assistant: Callable[..., object]
    user: Callable[..., object]
    call: Callable[..., object]


@dataclass(frozen=True, kw_only=True)
class Tau2Package:
    """A domain as the package has it.

    Attributes:
        tasks: of the split.
        environment: makes a fresh one.
        messages: constructors.
        evaluate: the reward of a conversation that the user has ended; DataError where it cannot be told.
        user_guidelines: the package's own prompt of its user's simulator.
    """

    tasks: Sequence[PackageTask]
    environment: Callable[[], Environment]
    messages: Messages
    evaluate: Callable[[PackageTask, list[object]], RewardInfo]
    user_guidelines: str


def load_tau2_package(domain: str, split: str, judge: LanguageModel | None) -> Tau2Package:
    """A domain and the tasks of a split.

    Args:
        domain: one of `Tau2Domain`.
        split: `base`, `train`, `test`; telecom has `small` and `full` too.
        judge: that answers the package's questions about assertions in words.

    Raises:
        ConfigError: the package is missing, or has no such domain or split.
    """
    if domain not in get_args(Tau2Domain):
        raise ConfigError(f"domain {domain!r}", hint=f"use one of {', '.join(get_args(Tau2Domain))}")
    modules = _import_package()
    registry = modules["registry"].registry
    splits: Mapping[str, object] = registry.get_task_splits_loader(domain)()
    if split not in splits:
        raise ConfigError(f"{domain} has no split {split!r}", hint=f"use one of {', '.join(splits)}")
    environment: Callable[[], Environment] = registry.get_env_constructor(domain)
    message = modules["data_model.message"]
    has_tools = environment().user_tools is not None
    return Tau2Package(
        tasks=registry.get_tasks_loader(domain)(task_split_name=split),
        environment=environment,
        messages=Messages(assistant=message.AssistantMessage, user=message.UserMessage, call=message.ToolCall),
        evaluate=_Evaluation(modules, domain, judge),
        user_guidelines=modules["user.user_simulator"].get_global_user_sim_guidelines(use_tools=has_tools),
    )


_MODULES = (
    "registry",
    "data_model.message",
    "data_model.simulation",
    "evaluator.evaluator",
    "evaluator.evaluator_nl_assertions",
    "user.user_simulator",
)


def _import_package() -> dict[str, ModuleType]:
    # litellm, which the package imports, otherwise asks a server for prices of models as soon as it is imported.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        # The package writes every call of a tool to the standard error.
        importlib.import_module("loguru").logger.disable("tau2")
        return {name: importlib.import_module(f"tau2.{name}") for name in _MODULES}
    except ImportError as error:
        raise ConfigError(f"tau2-bench cannot be imported ({error})", hint=INSTALL) from error


class _Evaluation:
    """The package's evaluators on the messages of a conversation."""

    def __init__(self, modules: Mapping[str, ModuleType], domain: str, judge: LanguageModel | None) -> None:
        self._modules, self._domain, self._judge = modules, domain, judge

    def __call__(self, task: PackageTask, messages: list[object]) -> RewardInfo:
        simulation = self._modules["data_model.simulation"]
        evaluator = self._modules["evaluator.evaluator"]
        run = simulation.SimulationRun(
            id=task.id,
            task_id=task.id,
            start_time="",
            end_time="",
            duration=0.0,
            termination_reason=simulation.TerminationReason.USER_STOP,
            messages=messages,
        )
        with self._judged():
            try:
                return evaluator.evaluate_simulation(
                    simulation=run,
                    task=task,
                    evaluation_type=evaluator.EvaluationType.ALL,
                    solo_mode=False,
                    domain=self._domain,
                )
            except (ValueError, KeyError, TypeError, AssertionError) as error:
                problem = f"tau2 cannot evaluate task {task.id!r} ({type(error).__name__}: {error})"
                raise DataError(problem, hint="see whether the judge answers in JSON, or run the task again") from error

    @contextmanager
    def _judged(self) -> Generator[None]:
        """Lets our model answer what the package's judge asks; its prompt and its reading of the answer stay."""
        names = vars(self._modules["evaluator.evaluator_nl_assertions"])
        before = names["generate"]
        if self._judge is not None:
            names["generate"] = _Judge(self._judge)
        try:
            yield
        finally:
            names["generate"] = before


class _Judge:
    """A language model in the place of the package's `generate`."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def __call__(self, *, messages: Sequence[PackageMessage], **_: object) -> SimpleNamespace:
        system, user = (each.content or "" for each in messages)
        request = Request(step="judge", prompt=system, pieces=(Piece(text=user),), max_new_tokens=2048, seed=0)
        (reply,) = self._model.reply([request])
        if not isinstance(reply, Reply):
            raise reply
        text = without_thoughts(reply.output)
        return SimpleNamespace(content=text[text.find("{") : text.rfind("}") + 1])
