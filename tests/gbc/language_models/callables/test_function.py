"""Functions as language models: order, bounds, failures."""

import asyncio
import threading
import time
from typing import Any

import pytest

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.gbc.language_models.callables.function import CallableModel
from framework.gbc.language_models.interface import LanguageModel, Piece, Reply, Request


def asked(text: str, **more: Any) -> Request:
    pieces = (Piece(text="user: "), Piece(text=text, source="user"))
    return Request(step="writer", prompt="Write.", pieces=pieces, max_new_tokens=5, **more)


def outputs(replies: list[Reply | FrameworkError]) -> list[str]:
    return [reply.output if isinstance(reply, Reply) else str(reply) for reply in replies]


def test_a_function():
    model = CallableModel(lambda prompt, message: f"{prompt} {message}")
    assert isinstance(model, LanguageModel)
    (reply,) = model.reply([asked("hi; no", stop=(";",))])
    assert isinstance(reply, Reply)
    assert (reply.output, reply.input_ids, reply.blocks[1].text) == ("Write. user: hi", (), "hi; no")


def test_what_raises_fails_alone():
    def ask(prompt: str, message: str) -> Any:
        if "bad" in message:
            raise KeyError("x")
        return 3 if "number" in message else "fine"

    first, second, third = CallableModel(ask).reply([asked("bad"), asked("good"), asked("number")])
    assert isinstance(first, DataError)
    assert outputs([first, second, third]) == [
        "the model of 'writer' raised KeyError ('x'): see what it was asked",
        "fine",
        "the model of 'writer' raised TypeError (it returned int, not a text): see what it was asked",
    ]


class Counter:
    """How many are at work at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()

    def change(self, by: int) -> None:
        with self.lock:
            self.now += by
            self.most = max(self.most, self.now)


@pytest.mark.parametrize("is_async", [True, False])
def test_the_bound_on_parallel_requests(is_async):
    counter, loops = Counter(), set()

    async def ask_later(prompt: str, message: str) -> str:
        loops.add(asyncio.get_running_loop())
        counter.change(1)
        await asyncio.sleep(0.01)
        counter.change(-1)
        return message

    def ask(prompt: str, message: str) -> str:
        counter.change(1)
        time.sleep(0.01)
        counter.change(-1)
        return message

    model = CallableModel(ask_later if is_async else ask, parallel=3)
    requests = [asked(str(number)) for number in range(9)]
    assert outputs(model.reply(requests)) == [f"user: {number}" for number in range(9)]
    assert outputs(model.reply(requests[:1])) == ["user: 0"]
    assert counter.most == 3
    # Clients keep connections on their loop.
    assert len(loops) == is_async
    with pytest.raises(ConfigError, match="parallel 0"):
        CallableModel(ask, parallel=0)


def test_where_a_loop_runs_already_as_in_a_notebook():
    async def ask(prompt: str, message: str) -> str:
        return message

    async def cell() -> list[str]:
        return outputs(CallableModel(ask).reply([asked("hi")]))

    assert asyncio.run(cell()) == ["user: hi"]
