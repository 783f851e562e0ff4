"""A small shop with the interface of the package's `Env`: what the adapter, the loop and the losses are tested on."""

import copy
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from framework.gbc.environments.tau_bench.adapter import TauBench
from framework.gbc.environments.tau_bench.interface import RESPOND, STOP
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


@pytest.fixture
def shop() -> TauBench:
    return TauBench(Shop(), ShopAction, name="shop/test")


@pytest.fixture
def lines() -> type[Lines]:
    return Lines
