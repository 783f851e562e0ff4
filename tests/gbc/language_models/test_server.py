"""The client against a real HTTP server that is well, slow, down or strange."""

import socket
import time
from typing import Any

import pytest

from framework.core.errors import ConfigError, DataError
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.language_models.interface import Piece, Request
from framework.gbc.language_models.server import ServerError, ServerModel, ServerModelConfig
from framework.testing.servers.model_server import serving


def client(url: str, **options: Any) -> ServerModel:
    settings: dict[str, Any] = {"timeout_s": 5.0, "retries": 2, "backoff_s": 0.01, "parallel": 2, **options}
    return ServerModel(ServerModelConfig(url=url, model="big", **settings))


def ask(text: str) -> Request:
    return Request(step="a", prompt="Be brief.", pieces=(Piece(text=text, source="user"),), max_new_tokens=9, seed=4)


def test_answers_come_in_the_order_of_the_requests(tmp_path):
    (tmp_path / "key").write_text("secret\n")
    with serving() as server:
        replies = client(server.url, key_file=str(tmp_path / "key")).reply([ask(f"t{i}") for i in range(5)])
    assert [reply.output for reply in replies] == [f"T{i}" for i in range(5)]
    assert replies[0].finish == "length"
    assert replies[0].input_ids == ()
    assert [block.text for block in replies[0].blocks] == ["Be brief.", "t0"]
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body["model"] == "big"
    assert (body["max_tokens"], body["seed"], body["temperature"]) == (9, 4, 0.0)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}


def test_faults_that_pass_are_retried():
    with serving(503, 429) as server:
        (reply,) = client(server.url).reply([ask("t")])
    assert reply.output == "T"
    assert len(server.seen) == 3


@pytest.mark.slow
def test_a_slow_server_is_left_after_the_time_and_tried_again():
    with serving("slow") as server:
        (reply,) = client(server.url, timeout_s=0.2).reply([ask("t")])
        assert reply.output == "T"
    with serving("slow", "slow", "slow") as server:
        begin = time.monotonic()
        (error,) = client(server.url, timeout_s=0.1).reply([ask("t")])
        assert time.monotonic() - begin < 3
        assert isinstance(error, ServerError)
        assert "failed 3 times, at last: no answer within 0.1 s" in str(error)


def test_a_server_that_is_down():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    replies = client(f"http://127.0.0.1:{port}/v1", retries=1, parallel=1).reply([ask("t")] * 3)
    assert all(isinstance(reply, ServerError) for reply in replies)
    # The others were not tried.
    assert replies[1] is replies[0]


def test_a_refusal_is_not_retried():
    with serving(401) as server:
        (error,) = client(server.url).reply([ask("t")])
    assert isinstance(error, ServerError)
    assert "refuses with state 401" in str(error)
    assert len(server.seen) == 1


def test_an_answer_that_is_no_completion():
    with serving("strange") as server:
        error, reply = client(server.url, parallel=1).reply([ask("t"), ask("u")])
    assert isinstance(error, DataError)
    assert "no chat completion to 'a': <html>" in str(error)
    assert reply.output == "U"


def test_finished_tasks_are_kept_when_the_server_fails():
    agent = Agent(name="a", prompt="Be brief.", model="big", reads=("user",), estimator="leave_one_out")
    tasks = [{"id": str(i), "user": f"t{i}"} for i in range(4)]
    with serving("well", "well", "well", 500) as server:
        models = {"big": client(server.url, retries=0, parallel=1)}
        runs = run_graph(Graph(agents=(agent,)), models, tasks, options=RunOptions(tasks_at_once=2))
        kept = [next(runs) for _ in range(4)]
        with pytest.raises(ServerError, match="state 500"):
            next(runs)
    assert [trace.failure is None for trace in kept] == [True, True, True, False]
    assert "state 500" in kept[-1].failure


@pytest.mark.parametrize(
    "options", [{"url": "localhost"}, {"url": "http://x", "retries": -1}, {"url": "http://x", "timeout_s": 0.0}]
)
def test_options_that_cannot_be_used(options):
    with pytest.raises(ConfigError):
        ServerModelConfig(model="big", **options)


def test_a_key_file_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="key file"):
        client("http://x", key_file=str(tmp_path / "none"))
