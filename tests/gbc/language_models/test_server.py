"""The client against a real HTTP server that is well, slow, down or strange."""

import re
import socket
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from framework.core.errors import ConfigError, DataError
from framework.gbc.execution.loading import read_model_configs
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.language_models.interface import Piece, Reply, Request
from framework.gbc.language_models.server import (
    RequestFields,
    ServerError,
    ServerModel,
    ServerModelConfig,
    proxy_of,
    retry_after_s,
)
from framework.testing.servers.model_server import Answer, serving


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


@pytest.mark.parametrize("faults", [(503, 429), (529, 520), (504, 408)])
def test_faults_that_pass_are_retried(faults: tuple[int, int]):
    # 529 is Anthropic's "overloaded", 520 Cloudflare's.
    with serving(*(Answer(status=fault, body=b"") for fault in faults)) as server:
        (reply,) = client(server.url).reply([ask("t")])
    assert reply.output == "T"
    assert len(server.seen) == 3


def test_an_answer_that_drips_is_left_after_the_time(monkeypatch: pytest.MonkeyPatch):
    # Each part comes in time, all of them do not.
    parts = iter([b" "] * 50)

    def slow(response: httpx.Response):
        for part in parts:
            time.sleep(0.01)
            yield part

    monkeypatch.setattr(httpx.Response, "iter_bytes", slow)
    with serving() as server:
        (error,) = client(server.url, timeout_s=0.1, retries=0).reply([ask("t")])
    assert "no answer within 0.1 s" in str(error)
    assert len(list(parts)) > 30


def test_any_answer_of_success_will_do():
    body = b'{"choices": [{"message": {"content": "C"}}]}'
    with serving(Answer(status=201, body=body)) as server:
        (reply,) = client(server.url).reply([ask("t")])
    assert isinstance(reply, Reply)
    assert reply.output == "C"


@pytest.mark.parametrize("status", [401, 500, 200])
def test_a_server_that_repeats_the_key_does_not_show_it(tmp_path, status: int):
    (tmp_path / "key").write_text("our-own-key")
    answer = Answer(status=status, body=b'{"error": "the key our-own-key is wrong"}')
    with serving(answer) as server:
        (error,) = client(server.url, key_file=str(tmp_path / "key"), retries=0).reply([ask("t")])
    assert "our-own-key" not in str(error)
    assert "the key <removed> is wrong" in str(error)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (Answer(status=307, headers={"Location": "http://y/v1"}, body=b""), "sends on to http://y/v1: give the URL"),
        (Answer(status=404, body=b"no such page"), "the model's name, and whether the URL goes up to the version"),
        (Answer(status=403, body=b""), "see key_file of the model"),
        (Answer(status=400, body=b"System role not supported"), "`request: {system: null}`"),
        (Answer(status=400, body=b"Conversation roles must alternate user/assistant"), "`request: {system: null}`"),
        (Answer(status=400, body=b"Developer instruction is not enabled"), "`request: {system: null}`"),
        (Answer(status=413, body=b""), "see what the agents read"),
        (Answer(status=400, body=b"max_tokens is too large: 9"), "lower max_new_tokens of the agents"),
        # As routers tell of an error of the server behind them.
        (Answer(body=b'{"error": {"code": 502, "message": "overloaded"}}'), "an error of state 502: "),
        (Answer(status=429, body=b"insufficient_quota"), "the quota of the key, or lower parallel"),
    ],
)
def test_a_refusal_says_what_would_help(answer: Answer, hint: str):
    with serving(answer) as server:
        (error,) = client(server.url, retries=0).reply([ask("t")])
    assert hint in str(error)


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
    "options",
    [
        {"url": "localhost"},
        {"url": "http://"},
        {"url": "http://[::1"},
        {"url": "http://user:secret@x/v1"},
        {"url": "http://x/v1?key=secret"},
        {"url": "http://x/v1/chat/completions"},
        {"url": "http://x", "retries": -1},
        {"url": "http://x", "timeout_s": 0.0},
    ],
)
def test_options_that_cannot_be_used(options):
    with pytest.raises(ConfigError) as caught:
        ServerModelConfig(model="big", **options)
    assert "secret" not in str(caught.value)


def test_a_key_file_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"none cannot be read .*: give a readable file with the key"):
        client("http://x", key_file=str(tmp_path / "none"))


def test_a_server_that_takes_other_fields_says_which_setting_helps():
    refused = {
        "max_tokens": "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
        "temperature": "'temperature' does not support 0.0 with this model.",
        "seed": "Extra inputs are not permitted: seed",
        "system": "Unknown role: system",
    }
    request: dict[str, Any] = {}
    hints = {
        "max_tokens": "max_completion_tokens",
        "temperature": None,
        "seed": None,
        "system": None,
    }
    with serving(refused=refused) as server:
        for name, value in hints.items():
            (error,) = client(server.url, request=RequestFields(**request)).reply([ask("t")])
            assert f"`request: {{{name}: {value or 'null'}}}`" in str(error)
            request[name] = value
        extra = {"chat_template_kwargs": {"enable_thinking": False}}
        (reply,) = client(server.url, request=RequestFields(**request, extra=extra)).reply([ask("t")])
    assert isinstance(reply, Reply)
    assert reply.output == "BE BRIEF.\n\nT"
    assert server.seen[-1][2] == {
        "model": "big",
        "messages": [{"role": "user", "content": "Be brief.\n\nt"}],
        "max_completion_tokens": 9,
        **extra,
    }


def test_a_prompt_in_another_role_and_a_file_of_models_that_says_so(tmp_path):
    path = tmp_path / "models.yaml"
    with serving() as server:
        path.write_text(f"big: {{url: '{server.url}', model: big, request: {{system: developer, seed: null}}}}")
        config = read_model_configs(path)["big"]
        assert isinstance(config, ServerModelConfig)
        ServerModel(config).reply([ask("t")])
    body = server.seen[0][2]
    assert body["messages"][0]["role"] == "developer"
    assert "seed" not in body


def test_a_prompt_that_is_too_long_fails_its_task_alone():
    answer = Answer(status=400, body=b'{"message": "This model\'s maximum context length is 16 tokens."}')
    with serving(answer) as server:
        error, reply = client(server.url, parallel=1).reply([ask("t"), ask("u")])
    assert isinstance(error, DataError)
    assert "state 400" in str(error)
    assert isinstance(reply, Reply)


def test_the_wait_that_a_server_asks_for():
    limited = Answer(status=429, headers={"Retry-After": "0.2"}, body=b"slow down")
    with serving(limited) as server:
        begin = time.monotonic()
        (reply,) = client(server.url).reply([ask("t")])
        assert time.monotonic() - begin >= 0.2
        assert isinstance(reply, Reply)
    limited = Answer(status=429, headers={"Retry-After": "3600"}, body=b"quota")
    with serving(limited) as server:
        (error,) = client(server.url).reply([ask("t")])
    assert "asks to wait 3600 s (state 429: quota): go on later, or raise longest_wait_s" in str(error)
    assert len(server.seen) == 1


def test_forms_of_retry_after():
    assert retry_after_s({}) is None
    assert retry_after_s({"retry-after": "7"}) == 7
    assert retry_after_s({"retry-after": "soon"}) is None
    assert retry_after_s({"retry-after": "nan"}) is None
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert retry_after_s({"retry-after": format_datetime(datetime.now(timezone.utc) + timedelta(60))}) > 5e6
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}) == 0.25


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            Answer(message={"content": None, "reasoning_content": "Hm"}, finish="length"),
            "all of its 9 new tokens on th",
        ),
        (Answer(message={"content": ""}, finish="length"), "raise max_new_tokens of the agent, or turn thinking off"),
        (Answer(message={"content": "<think>Let me"}, finish="length"), "spent all of its 9 new tokens on thoughts"),
        (Answer(message={"content": "", "reasoning_content": "Hm"}), "thought 2 characters and said nothing"),
        (Answer(message={"content": None, "refusal": "No."}), "no chat completion with a text: .*No[.]"),
        (Answer(message={"content": None}, finish="content_filter"), "content_filter"),
        (Answer(message={"content": "[THINK]Hm"}, finish="length"), "spent all of its 9 new tokens on thoughts"),
        (Answer(message={"content": "<think>Hm</think>"}), "thought 17 characters and said nothing"),
        (Answer(message={"content": 3}), "no chat completion with a text"),
        (Answer(body=b""), "to 'a': an empty answer: see whether"),
        (Answer(body=b'data: {"choices": []}\n\ndata: [DONE]'), "the server streams: leave `stream` out"),
        (Answer(message=None), "no chat completion to 'a'"),
        (Answer(message={"content": "x \ud83d"}), "half of a character .*ud83d"),
        (Answer(body=b'{"choices": [{"message": {"content": "\xe9"}}]}'), "not UTF-8"),
    ],
)
def test_an_answer_without_a_text_fails_its_task_and_says_why(answer: Answer, words: str):
    with serving(answer) as server:
        error, reply = client(server.url, parallel=1).reply([ask("t"), ask("u")])
    assert isinstance(error, DataError)
    assert re.search(words, str(error))
    assert isinstance(reply, Reply)


def test_answers_in_parts_and_with_a_byte_order_mark():
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    marked = b'\xef\xbb\xbf{"choices": [{"message": {"content": "C"}}]}'
    with serving(Answer(message={"content": parts}), Answer(body=marked)) as server:
        replies = client(server.url, parallel=1).reply([ask("t"), ask("u")])
    assert [reply.output for reply in replies if isinstance(reply, Reply)] == ["AB", "C"]


def test_a_proxy_that_swallows_localhost_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with serving(403, 502, Answer(body=b"<html>Log in")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:secret@"))
        asking = client("http://localhost:1/v1", retries=0)
        errors = [asking.reply([ask("t")])[0] for _ in range(3)]
        assert proxy.seen[0][0] == "http://localhost:1/v1/chat/completions"
    for error in errors:
        assert f"(through the proxy 127.0.0.1:{proxy.server_port} of http_proxy)" in str(error)
        assert "secret" not in str(error)
    assert "set NO_PROXY=localhost" in str(errors[0])
    monkeypatch.setenv("http_proxy", "gopher://x")
    with pytest.raises(ConfigError, match="the proxy that the environment names cannot be used"):
        asking.reply([ask("t")])
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.delenv("no_proxy")
    assert proxy_of("http://localhost:1/v1") is None


@pytest.mark.parametrize("key", [b"", b"a\nb", "clé".encode(), b"\xff", b"two words"])
def test_a_key_file_that_holds_no_key(tmp_path, key: bytes):
    (tmp_path / "key").write_bytes(key)
    with pytest.raises(ConfigError, match="key"):
        client("http://x", key_file=str(tmp_path / "key"))


def test_a_key_that_an_editor_saved(tmp_path):
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfsecret\r\n\r\n")
    assert client("http://x", key_file=str(tmp_path / "key")).headers["Authorization"] == "Bearer secret"


def test_texts_that_end_an_answer():
    request = Request(step="a", prompt="P", pieces=(Piece(text="one END two"),), max_new_tokens=9, stop=("END",))
    with serving() as server:
        (reply,) = client(server.url).reply([request])
        (other,) = client(server.url, request=RequestFields(stop=None)).reply([request])
    # This server does not stop, as some do not.
    assert [each.output for each in (reply, other) if isinstance(each, Reply)] == ["ONE ", "ONE "]
    assert isinstance(reply, Reply)
    assert reply.finish == "stop"
    assert [body.get("stop") for _, _, body in server.seen] == [["END"], None]
