"""A small HTTP server that speaks OpenAI's chat completions, well, slowly or strangely."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    server: Any

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
        answer: Any = {"choices": [{"message": {"content": text}, "finish_reason": "length"}]}
        data = b"<html>" if fault == "strange" else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(*faults: str | int) -> Iterator[Any]:
    """A server on a free port of this machine that answers with the message in capitals.

    Args:
        faults: what becomes of the first requests, in turn: `well`, `slow` (no answer), `strange` (no completion), or
            an HTTP state.

    Yields:
        the server, with `url` and `seen`, the (path, headers, body) of each request.
    """
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.seen, server.faults, server.lock = [], list(faults), threading.Lock()
    server.release = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
