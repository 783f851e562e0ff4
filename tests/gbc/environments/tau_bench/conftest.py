"""A small shop as tau-bench has one and a house as tau2-bench has one: what adapters, loop and losses are tested on."""

import copy
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from framework.gbc.environments.tau_bench.adapter import TauBench
from framework.gbc.environments.tau_bench.interface import RESPOND, STOP
from framework.gbc.environments.tau_bench.tau2_adapter import Tau2Bench
from framework.gbc.environments.tau_bench.tau2_package import Messages, Tau2Package
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.language_models.prompt_encoding import render_blocks

DATA = {"orders": {"1": "pending", "2": "pending", "3": "delivered"}}


def info(name: str, *parameters: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {each: {"type": "string"} for each in parameters}}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


class GetOrder:
    @staticmethod
    def invoke(data: dict[str, Any], order_id: str) -> str:
        return data["orders"][order_id]

    @staticmethod
    def get_info() -> dict[str, Any]:
        return info("get_order", "order_id")


class CancelOrder:
    @staticmethod
    def invoke(data: dict[str, Any], order_id: str) -> str:
        if data["orders"][order_id] != "pending":
            return "Error: not pending"
        data["orders"][order_id] = "cancelled"
        return "cancelled"

    @staticmethod
    def get_info() -> dict[str, Any]:
        return info("cancel_order", "order_id")


class HandOver:
    @staticmethod
    def invoke(data: dict[str, Any]) -> str:
        return "handed over"

    @staticmethod
    def get_info() -> dict[str, Any]:
        return info("hand_over")


class ShopAction:
    def __init__(self, *, name: str, kwargs: dict[str, Any]) -> None:
        self.name, self.kwargs = name, kwargs


def task(*calls: tuple[str, str], outputs: Sequence[str] = ()) -> SimpleNamespace:
    actions = [ShopAction(name=name, kwargs={"order_id": order}) for name, order in calls]
    return SimpleNamespace(instruction="You want to cancel.", actions=actions, outputs=list(outputs))


class Shop:
    """Steps, ends and rewards as in the package: at the end the right database stands in the place of the agent's."""

    wiki = "Cancel pending orders only.\n"

    def __init__(self) -> None:
        tools = (GetOrder, CancelOrder, HandOver)
        self.tools_map: dict[str, Any] = {tool.get_info()["function"]["name"]: tool for tool in tools}
        self.tools_info = [tool.get_info() for tool in tools]
        self.terminate_tools = ["hand_over"]
        self.tasks = [
            task(("get_order", "1"), ("cancel_order", "1")),
            task(("cancel_order", "2"), outputs=["1200", "two"]),
        ]
        self.user: Any = None

    def reset(self, task_index: int) -> SimpleNamespace:
        self.data, self.task = copy.deepcopy(DATA), self.tasks[task_index]
        self.actions: list[ShopAction] = []
        return SimpleNamespace(observation=self.user.reset(instruction=self.task.instruction))

    def step(self, action: ShopAction) -> SimpleNamespace:
        self.actions.append(action)
        found = SimpleNamespace(reward_info=None)
        if action.name == RESPOND:
            said = self.user.step(action.kwargs["content"])
            done = STOP in said
        else:
            try:
                said = self.tools_map[action.name].invoke(data=self.data, **action.kwargs)
            except Exception as error:
                said = f"Error: {error}"
            done = action.name in self.terminate_tools
        if done:
            found.reward_info = self.calculate_reward()
        return SimpleNamespace(observation=said, done=done, info=found)

    def get_data_hash(self) -> str:
        return json.dumps(self.data, sort_keys=True)

    def calculate_reward(self) -> SimpleNamespace:
        mine, said = self.get_data_hash(), [each.kwargs["content"] for each in self.actions if each.name == RESPOND]
        self.data = copy.deepcopy(DATA)
        for action in self.task.actions:
            self.step(action)
        told = {output: any(output in text.replace(",", "") for text in said) for output in self.task.outputs}
        reward = float(mine == self.get_data_hash() and all(told.values()))
        # One part only, as in the package.
        part = {"outputs": told} if told else {"r_actions": mine == self.get_data_hash()}
        return SimpleNamespace(reward=reward, info=SimpleNamespace(**part))


class Lines:
    """A model that says what it is given, for agents and users; it keeps what it was asked."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.asked = list(lines), []

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        (request,) = requests
        self.asked.append(request)
        text, blocks = render_blocks(lambda prompt, message: f"{prompt}\n\n{message}", request)
        empty: dict[str, Any] = dict.fromkeys(("input_ids", "input_spans", "output_ids", "output_spans"), ())
        return [Reply(input_text=text, blocks=blocks, output=self.lines.pop(0), finish="stop", **empty)]


class Kit:
    """The tools of one side; each is a function of the house, written beside its name."""

    def __init__(self, house: dict[str, Any], *names: str) -> None:
        self.house, self.names = house, names

    def tool_mutates_state(self, tool_name: str) -> bool:
        return tool_name in ("open_line", "restart_router")

    def has_tool(self, tool_name: str) -> bool:
        return tool_name in self.names


class House:
    """A line and a router with the interface of tau2's `Environment`: the agent opens the line, the user restarts."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"lines": {"1": "closed", "2": "closed"}, "router": "works"}
        self.tools, self.user_tools = (
            Kit(self.state, "find_line", "open_line"),
            Kit(self.state, "restart_router", "look"),
        )

    def get_policy(self) -> str:
        return "Open closed lines.\n"

    def get_tools(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(openai_schema=info(name, "line")) for name in self.tools.names]

    def get_user_tools(self, include: list[str] | None = None) -> list[SimpleNamespace]:
        names = self.user_tools.names if include is None else include
        return [SimpleNamespace(openai_schema=info(name)) for name in names]

    def set_state(
        self, initialization_data: Any, initialization_actions: Any, message_history: Sequence[object]
    ) -> None:
        self.state.update(initialization_data or {})
        for change in initialization_actions or ():
            self.state.update(change)

    def get_response(self, message: Any) -> SimpleNamespace:
        try:
            text = getattr(self, message.name)(**message.arguments)
        except Exception as error:
            text = f"Error: {error}"
        return SimpleNamespace(role="tool", content=text, call=message)

    def find_line(self, line: str) -> str:
        if line not in self.state["lines"]:
            raise ValueError("no such line")
        return self.state["lines"][line]

    def open_line(self, line: str) -> str:
        self.find_line(line)
        self.state["lines"][line] = "open"
        return "opened"

    def restart_router(self) -> str:
        self.state["router"] = "works"
        return "restarted"

    def look(self) -> str:
        return f"the light is {'green' if self.state['router'] == 'works' else 'red'}"

    def get_db_hash(self) -> str:
        return json.dumps(self.state["lines"], sort_keys=True)

    def get_user_db_hash(self) -> str:
        return str(self.state["router"])


class Record(SimpleNamespace):
    """With the one method of pydantic's models that the adapter needs."""

    def model_copy(self, *, update: dict[str, Any]) -> "Record":
        return Record(**{**vars(self), **update})


def house_task(*actions: tuple[str, str, dict[str, str]], basis: Sequence[str], **parts: Any) -> Record:
    criteria = Record(
        actions=[
            SimpleNamespace(requestor=by, name=name, arguments=arguments, compare_args=parts.get("compare_args"))
            for by, name, arguments in actions
        ],
        communicate_info=parts.get("told"),
        nl_assertions=parts.get("judged"),
        env_assertions=[
            SimpleNamespace(func_name="look", arguments={}, assert_value="the light is green")
            for _ in range(parts.get("num_assertions", 0))
        ],
        reward_basis=[SimpleNamespace(value=each) for each in basis],
    )
    return Record(
        id="house",
        user_scenario="You want your line back.",
        user_tools=parts.get("user_tools"),
        initial_state=parts.get("initial_state"),
        evaluation_criteria=criteria,
    )


def state_of(*changes: dict[str, Any], history: Sequence[object] = ()) -> SimpleNamespace:
    return SimpleNamespace(
        initialization_data=None, initialization_actions=list(changes), message_history=list(history)
    )


HOUSE_TASKS = (
    house_task(
        ("assistant", "find_line", {"line": "1"}),
        ("assistant", "open_line", {"line": "1"}),
        basis=("DB", "COMMUNICATE"),
        told=["42"],
        user_tools=[],
    ),
    house_task(
        ("user", "restart_router", {}),
        basis=("ENV_ASSERTION", "ACTION"),
        num_assertions=1,
        initial_state=state_of({"router": "hangs"}),
    ),
    house_task(("assistant", "open_line", {"line": "2"}), basis=("DB", "NL_ASSERTION"), judged=["The agent is kind."]),
    house_task(basis=("DB",), initial_state=state_of(history=["Hello."])),
)


def judge_house(task: Any, messages: list[Any]) -> SimpleNamespace:
    """Plays the calls of a conversation and the expected ones, each in a house of its own, as the package does."""
    criteria = task.evaluation_criteria
    mine, right = House(), House()
    for house in (mine, right):
        state = task.initial_state or state_of()
        house.set_state(state.initialization_data, state.initialization_actions, ())
    calls = [call for message in messages for call in getattr(message, "tool_calls", None) or ()]
    for house, done in ((mine, calls), (right, criteria.actions)):
        for call in done:
            house.get_response(call)
    said = [m.content for m in messages if m.role == "assistant" and getattr(m, "content", None)]
    taken = [
        any((call.name, call.requestor, call.arguments) == (a.name, a.requestor, a.arguments) for call in calls)
        for a in criteria.actions
    ]
    assertions = [SimpleNamespace(env_assertion=a, met=mine.look() == a.assert_value) for a in criteria.env_assertions]
    told = [
        SimpleNamespace(info=text, met=any(text in each for each in said)) for text in criteria.communicate_info or ()
    ]
    same = (mine.get_db_hash(), mine.get_user_db_hash()) == (right.get_db_hash(), right.get_user_db_hash())
    basis = [each.value for each in criteria.reward_basis]
    judged = (
        [SimpleNamespace(nl_assertion=text, met="please" in said[-1]) for text in criteria.nl_assertions or ()]
        if "NL_ASSERTION" in basis
        else None
    )
    fulfilled = {
        "DB": same,
        "COMMUNICATE": all(each.met for each in told),
        "ENV_ASSERTION": all(each.met for each in assertions),
        "ACTION": all(taken),
        "NL_ASSERTION": all(each.met for each in judged or ()),
    }
    return SimpleNamespace(
        reward=float(all(fulfilled[part] for part in basis)),
        db_check=SimpleNamespace(db_match=same),
        env_assertions=assertions,
        action_checks=[SimpleNamespace(action_match=each) for each in taken],
        communicate_checks=told,
        nl_assertions=judged,
    )


@pytest.fixture
def house_package() -> Tau2Package:
    def message(**fields: Any) -> SimpleNamespace:
        return SimpleNamespace(**fields)

    return Tau2Package(
        tasks=HOUSE_TASKS,
        environment=House,
        messages=Messages(assistant=message, user=message, call=message),
        evaluate=judge_house,
        user_guidelines="Play a customer.\n",
    )


@pytest.fixture
def house(house_package: Tau2Package) -> Tau2Bench:
    return Tau2Bench(house_package, name="house/base")


@pytest.fixture
def judged_house(house_package: Tau2Package) -> Tau2Bench:
    return Tau2Bench(house_package, name="house/base", is_judged=True)


@pytest.fixture
def shop() -> TauBench:
    return TauBench(Shop(), ShopAction, name="shop/test")


@pytest.fixture
def lines() -> type[Lines]:
    return Lines
