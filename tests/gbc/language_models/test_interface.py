"""Requests, replies and the protocol of language models."""

from collections.abc import Sequence

import pytest

from framework.core.errors import DataError, FrameworkError
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.language_models.interface import LanguageModel, Piece, Reply, Request, stop_in
from framework.gbc.language_models.server import ServerModel, ServerModelConfig
from framework.testing.language_models import tiny_local_model


class Echo:
    """Any object with `reply` is a language model: this one says what it reads, but for one word."""

    def reply(self, requests: Sequence[Request]) -> list[Reply | FrameworkError]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply | FrameworkError:
        if "secret" in request.message:
            return DataError("a secret", hint="ask for something else")
        return Reply(
            input_text=request.message,
            input_ids=(),
            input_spans=(),
            blocks=(),
            output=request.message,
            output_ids=(),
            output_spans=(),
            finish="stop",
        )


def test_a_message_is_its_pieces_in_order():
    pieces = (Piece(text="say "), Piece(text="hello", source="a"), Piece(text="!"))
    assert Request(step="b", prompt="", pieces=pieces, max_new_tokens=1).message == "say hello!"


@pytest.mark.parametrize(
    "model", [Echo(), tiny_local_model(), ServerModel(ServerModelConfig(url="http://localhost:1/v1", model="m"))]
)
def test_what_is_a_language_model(model):
    assert isinstance(model, LanguageModel)
    assert not isinstance(object(), LanguageModel)


def test_any_object_of_the_protocol_answers_agents():
    graph = Graph(agents=(Agent(name="a", prompt="", model="m", reads=("user",), template="<{user}>"),))
    tasks = [{"id": "0", "user": "hi"}, {"id": "1", "user": "secret"}]
    good, bad = run_graph(graph, {"m": Echo()}, tasks, options=RunOptions())
    assert good.output == "<hi>"
    assert bad.failure == "a secret: ask for something else"


def test_where_an_answer_stops():
    assert stop_in("abcab", ("b", "c")) == 1
    assert stop_in("abc", ("x",)) is None
    assert stop_in("abc", ()) is None
