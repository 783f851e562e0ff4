"""A small HTTP server that speaks OpenAI's chat completions, well, slowly or strangely."""

import json
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer as it goes out.

    Attributes:
        message: of the completion; None for one without a choice.
        finish: its finish_reason.
        body: in place of a completion.
        status: of HTTP.
        headers: beside the length.
    """

    message: Mapping[str, object] | None = None
    finish: str = "stop"
    body: bytes | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def data(self) -> bytes:
        """What is sent."""
        if self.body is not None:
            return self.body
        choices = [] if self.message is None else [{"message": self.message, "finish_reason": self.finish}]
        return json.dumps({"choices": choices}).encode()


Fault = str | int | Answer


class ModelServer(ThreadingHTTPServer):
    """A server on a free port of this machine.

    Attributes:
        seen: path, headers and body of each request.
        faults: what becomes of the next requests, in turn.
        refused: keys of a request that the server does not take, each with what it says about it.
        release: set to let go of the requests that wait.
    """

    daemon_threads = True

    def __init__(self, faults: Sequence[Fault], refused: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.faults, self.lock, self.release = list(faults), threading.Lock(), threading.Event()
        self.refused = refused

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            fault = self.server.faults.pop(0) if self.server.faults else "well"
        if fault == "slow":
            self.server.release.wait()
            return
        if isinstance(fault, int):
            self.send_error(fault)
            return
        text = body["messages"][-1]["content"].upper()
        answer = Answer(message={"content": text}, finish="length")
        roles = [message["role"] for message in body["messages"]]
        refusals = [words for key, words in self.server.refused.items() if key in body or key in roles]
        if refusals:
            answer = Answer(status=400, body=json.dumps({"error": {"message": refusals[0]}}).encode())
        elif isinstance(fault, Answer):
            answer = fault
        elif fault == "strange":
            answer = Answer(body=b"<html>")
        data = answer.data()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(*faults: Fault, refused: Mapping[str, str] | None = None) -> Generator[ModelServer]:
    """A server that answers with the message in capitals.

    Args:
        faults: what becomes of the first requests, in turn: `well`, `slow` (no answer), `strange` (no completion), an
            HTTP state, or an answer.
        refused: keys of a request, or roles, that it does not take, each with what it says about it.
    """
    server = ModelServer(faults, refused or {})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
