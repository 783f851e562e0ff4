"""tau2-bench (Barres et al. 2025, arXiv 2506.07982): retail, airline and telecom, where the user has tools too.

The reward of a task is the package's own: the database, assertions about the environment, expected actions, what had
to be told, and assertions in words, as far as the task's basis names them.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from framework.core.errors import ConfigError, DataError
from framework.core.serialization import JsonDict
from framework.gbc.environments.tau_bench.interface import (
    RESPOND,
    STOP,
    Action,
    Heard,
    Observation,
    Part,
    TauReward,
    TauTask,
    User,
    UserCall,
    UserWithTools,
)
from framework.gbc.environments.tau_bench.tau2_package import (
    JUDGED,
    Criteria,
    EnvAssertion,
    PackageTask,
    RewardInfo,
    Tau2Domain,
    Tau2Package,
    load_tau2_package,
)
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.tool_calls.parsing import CalledTool, parse_tool_calls
from framework.gbc.language_models.tool_calls.thoughts import without_thoughts

ENDS = (STOP, "###TRANSFER###", "###OUT-OF-SCOPE###")
"""What a user says to end the conversation: done, handed over, or not told enough."""
MOST_USER_CALLS = 30
"""Of a user's tools between two of its messages."""

_PARTS: dict[str, Part] = {
    "DB": "database",
    "COMMUNICATE": "outputs",
    "ENV_ASSERTION": "assertions",
    "ACTION": "actions",
    JUDGED: "judged",
}
_USER_TOOLS = """You can do these things yourself; the agent sees neither them nor their results. To do one, answer \
with one JSON object and nothing else: {"name": "TOOL", "arguments": {...}}. The tools:"""


class Tau2Bench:
    """A domain of tau2-bench; conversations one after the other.

    Args:
        package: the domain as the package has it.
        name: for ids of episodes, such as `telecom/base`.
        is_judged: whether a model answers for assertions in words; without it they do not count.
    """

    def __init__(self, package: Tau2Package, *, name: str, is_judged: bool = False) -> None:
        self.name = name
        self._package, self._is_judged = package, is_judged
        self._env = package.environment()
        self._task: PackageTask | None = None
        self._user: User | None = None
        self._messages: list[object] = []
        self._hash: tuple[str | None, str | None] | None = None
        self._done = False

    def __len__(self) -> int:
        """The number of tasks of the split."""
        return len(self._package.tasks)

    def task(self, index: int) -> TauTask:
        """A task of the split.

        Raises:
            ConfigError: no such task.
        """
        if not 0 <= index < len(self):
            raise ConfigError(f"task {index} of {self.name}", hint=f"use 0 to {len(self) - 1}")
        task = self._package.tasks[index]
        criteria = task.evaluation_criteria
        actions = (criteria.actions if criteria else None) or ()
        return TauTask(
            index=index,
            instruction=str(task.user_scenario),
            actions=tuple(
                Action(
                    name=each.name,
                    arguments=dict(each.arguments),
                    by="user" if each.requestor == "user" else "agent",
                    compared=None if each.compare_args is None else tuple(each.compare_args),
                )
                for each in actions
            ),
            outputs=tuple((criteria.communicate_info if criteria else None) or ()),
        )

    @property
    def tools(self) -> list[JsonDict]:
        """The agent's tools as JSON schemas, in the form of OpenAI's functions."""
        return [each.openai_schema for each in self._env.get_tools()]

    @property
    def user_tools(self) -> list[JsonDict]:
        """The user's own tools, likewise; none but in telecom."""
        return [] if self._env.user_tools is None else [each.openai_schema for each in self._env.get_user_tools()]

    @property
    def policy(self) -> str:
        """The rules that an agent must follow."""
        return self._env.get_policy()

    @property
    def user_prompt(self) -> str:
        """For `ModelUser`: the package's guidelines for its users' simulators, as its published runs have them."""
        return f"{self._package.user_guidelines.strip()}\n\n{{instruction}}"

    def start(self, index: int, user: User) -> Heard:
        """Begins a task with fresh databases in the task's initial state; the user's first message.

        Raises:
            ConfigError: no such task, or one that begins in the middle of a conversation.
            DataError: the user calls a tool wrongly.
        """
        instruction = self.task(index).instruction
        task = self._package.tasks[index]
        state = task.initial_state
        if state is not None and state.message_history:
            problem = f"task {index} of {self.name} begins in the middle of a conversation"
            raise ConfigError(problem, hint="use another task")
        self._env, self._task, self._user = self._package.environment(), task, user
        self._env.set_state(
            initialization_data=state.initialization_data if state else None,
            initialization_actions=state.initialization_actions if state else None,
            message_history=[],
        )
        self._messages, self._hash, self._done = [], None, False
        if tools := self._tools_of_user(task):
            words = "\n".join(json.dumps(tool["function"]) for tool in tools)
            instruction = f"{instruction}\n\n{_USER_TOOLS}\n{words}"
        return self._hear(user.reset(instruction))

    def act(self, action: Action) -> Observation:
        """Calls a tool of either side, or says something to the user; an unknown tool is told in the observation."""
        if action.name != RESPOND:
            (called,) = self._call([action])
            return Observation(text=called.text, done=False, changed=called.changed)
        if self._user is None:
            raise ConfigError("no task has begun", hint="call start first")
        said = str(action.arguments["content"])
        self._messages.append(self._package.messages.assistant(role="assistant", content=said))
        heard = self._hear(self._user.step(said))
        return Observation(text=heard.text, done=self._done, changed=False, user_calls=heard.calls)

    def reward(self, *, failed: bool = False) -> TauReward:
        """Of the episode so far: of one that is not done or has failed 0, and nobody is asked to judge it.

        Raises:
            FrameworkError: the judge fails.
        """
        if self._task is None:
            raise ConfigError("no task has begun", hint="call start first")
        counts = self._done and not failed
        task, criteria = self._task, self._task.evaluation_criteria
        is_judged = counts and self._is_judged
        if criteria is not None and not is_judged:
            basis = [each for each in criteria.reward_basis if each.value != JUDGED]
            kept = criteria.model_copy(update={"reward_basis": basis})
            task = task.model_copy(update={"evaluation_criteria": kept})
        reward = _reward_of(self._package.evaluate(task, self._messages), criteria)
        return reward if counts else replace(reward, value=0.0)

    def _hear(self, text: str) -> Heard:
        """Lets the user call its tools until it says something."""
        assert self._user is not None
        assert self._task is not None
        known = {tool["function"]["name"] for tool in self._tools_of_user(self._task)}
        done: list[UserCall] = []
        while known and (calls := _calls_in(text)):
            if not isinstance(self._user, UserWithTools):
                problem = f"a user of type {type(self._user).__name__} calls {calls[0].name!r}"
                raise DataError(problem, hint="give it a method read_results, as ModelUser has")
            actions = [Action(name=each.name, arguments=each.arguments, by="user") for each in calls]
            for action in actions:
                if action.name not in known:
                    problem = f"the user calls {action.name!r}, which is not one of its tools"
                    raise DataError(problem, hint=f"use one of {', '.join(sorted(known))}")
            if len(done) + len(actions) > MOST_USER_CALLS:
                problem = f"the user calls more than {MOST_USER_CALLS} tools and says nothing"
                raise DataError(problem, hint="use another model or prompt for the user")
            results = self._call(actions)
            done += results
            text = self._user.read_results([each.text for each in results])
        said = without_thoughts(text)
        self._messages.append(self._package.messages.user(role="user", content=said))
        self._done = any(each in said for each in ENDS)
        return Heard(text=said, calls=tuple(done))

    def _tools_of_user(self, task: PackageTask) -> list[JsonDict]:
        if self._env.user_tools is None:
            return []
        return [each.openai_schema for each in self._env.get_user_tools(include=task.user_tools)]

    def _call(self, actions: Sequence[Action]) -> list[UserCall]:
        """Calls tools in one message of their caller."""
        make, role = self._package.messages, "user" if actions[0].by == "user" else "assistant"
        calls = [
            make.call(id=f"{len(self._messages)}.{number}", name=each.name, arguments=each.arguments, requestor=role)
            for number, each in enumerate(actions)
        ]
        message = make.user if role == "user" else make.assistant
        self._messages.append(message(role=role, tool_calls=calls))
        done: list[UserCall] = []
        for action, call in zip(actions, calls, strict=True):
            before = self._state() if self._mutates(action) else None
            result = self._env.get_response(call)
            self._messages.append(result)
            if before is not None:
                self._hash = None
            changed = before is not None and self._state() != before
            done.append(UserCall(action=action, text=result.content or "", changed=changed))
        return done

    def _mutates(self, action: Action) -> bool:
        """Whether a call may change a database; hashes of large ones take a third of a second."""
        kit = self._env.user_tools if action.by == "user" else self._env.tools
        return kit is not None and kit.has_tool(action.name) and kit.tool_mutates_state(action.name)

    def _state(self) -> tuple[str | None, str | None]:
        self._hash = self._hash or (self._env.get_db_hash(), self._env.get_user_db_hash())
        return self._hash


def load_tau2_bench(domain: Tau2Domain, split: str = "base", *, judge: LanguageModel | None = None) -> Tau2Bench:
    """The tasks of a domain.

    Args:
        domain: `retail`, `airline`, `telecom`, or `telecom-workflow`, the same tasks with another policy.
        split: `base`, `train`, `test`; telecom has `small` and `full` too.
        judge: a model, local or on a server, that answers the package's questions about assertions in words, which
            count in most of retail's tasks; without it they are left out of the reward.

    Raises:
        ConfigError: the package is missing, or has no such domain or split.
    """
    package = load_tau2_package(domain, split, judge)
    return Tau2Bench(package, name=f"{domain}/{split}", is_judged=judge is not None)


def _reward_of(info: RewardInfo, criteria: Criteria | None) -> TauReward:
    """The package's reward and its checks as ours."""
    if criteria is None:
        return TauReward(value=float(info.reward), database=True, basis=())
    judged = {each.nl_assertion: bool(each.met) for each in info.nl_assertions or ()}
    return TauReward(
        value=float(info.reward),
        database=info.db_check is None or bool(info.db_check.db_match),
        outputs={each.info: bool(each.met) for each in info.communicate_checks or ()},
        assertions={_words(each.env_assertion): bool(each.met) for each in info.env_assertions or ()},
        actions=all(each.action_match for each in info.action_checks or ()),
        judged={**dict.fromkeys(criteria.nl_assertions or ()), **judged},
        basis=tuple(_PARTS[each.value] for each in criteria.reward_basis),
    )


def _calls_in(text: str) -> tuple[CalledTool, ...]:
    try:
        return parse_tool_calls(text)
    except DataError as error:
        raise DataError(f"the user's message: {error.problem}", hint=error.hint) from error


def _words(assertion: EnvAssertion) -> str:
    return f"{assertion.func_name}({json.dumps(assertion.arguments)}) is {assertion.assert_value}"
