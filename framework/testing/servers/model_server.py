"""A small HTTP server that speaks OpenAI's chat completions, well, slowly or strangely."""

import json
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ModelServer(ThreadingHTTPServer):
    """A server on a free port of this machine.

    Attributes:
        seen: path, headers and body of each request.
        faults: what becomes of the next requests, in turn.
        release: set to let go of the requests that wait.
    """

    daemon_threads = True

    def __init__(self, faults: Sequence[str | int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.faults, self.lock, self.release = list(faults), threading.Lock(), threading.Event()

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
        text = body["messages"][1]["content"].upper()
        answer = {"choices": [{"message": {"content": text}, "finish_reason": "length"}]}
        data = b"<html>" if fault == "strange" else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(*faults: str | int) -> Generator[ModelServer]:
    """A server that answers with the message in capitals.

    Args:
        faults: what becomes of the first requests, in turn: `well`, `slow` (no answer), `strange` (no completion), or
            an HTTP state.
    """
    server = ModelServer(faults)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
