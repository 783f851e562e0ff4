"""A server that W&B's client takes for its own, as far as one run's metrics go: no artifacts, no files."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JSONObject = dict[str, Any]
_USER = {"id": "u", "entity": "team", "username": "user", "flags": "{}", "teams": {"edges": []}}
_PROJECT = {"id": "p", "name": "framework", "entity": {"id": "e", "name": "team"}}


@dataclass(kw_only=True)
class WandbServer:
    """What was received.

    Attributes:
        url: for WANDB_BASE_URL.
        history: of each run by its id, the rows by their place.
        bodies: of all requests, as they came.
    """

    url: str
    history: dict[str, dict[int, JSONObject]] = field(default_factory=dict)
    bodies: list[str] = field(default_factory=list)

    def rows(self, run: str) -> list[JSONObject]:
        """A run's rows in their order."""
        return [row for _, row in sorted(self.history[run].items())]

    def answer(self, path: str, request: JSONObject) -> JSONObject:
        """To a request in JSON."""
        if path.endswith("/file_stream"):
            self._receive(path.split("/")[-2], request.get("files") or {})
            return {}
        operation, variables = request.get("query", "").partition("(")[0], request.get("variables") or {}
        if "RunResumeStatus" in operation:
            return {"data": {"model": {**_PROJECT, "bucket": self._resumed(variables["name"])}}}
        if "UpsertBucket" in operation:
            self.history.setdefault(variables["name"], {})
            bucket = {"id": "b", "name": variables["name"], "displayName": "", "config": "{}", "project": _PROJECT}
            return {"data": {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}}
        if "Viewer" in operation:
            return {"data": {"viewer": _USER}}
        if "ServerFeatures" in operation:
            return {"data": {"serverInfo": {"features": []}}}
        return {"errors": [{"message": "not here"}]}

    def _resumed(self, run: str) -> JSONObject | None:
        if not self.history.get(run):
            return None
        rows = self.rows(run)
        lines = json.dumps([json.dumps(rows[-1])])
        counts = {"historyLineCount": len(rows), "eventsLineCount": 0, "logLineCount": 0}
        texts = {"historyTail": lines, "eventsTail": "[]", "summaryMetrics": json.dumps(rows[-1]), "config": "{}"}
        return {"id": "b", "name": run, "tags": [], "wandbConfig": json.dumps({"t": 1}), **counts, **texts}

    def _receive(self, run: str, files: JSONObject) -> None:
        part = files.get("wandb-history.jsonl")
        if part is None:
            return
        for place, line in enumerate(part["content"]):
            self.history.setdefault(run, {})[part["offset"] + place] = json.loads(line)


@contextmanager
def serve_wandb() -> Iterator[WandbServer]:
    """A server on a free port; afterwards the port and all connections are closed."""
    state = WandbServer(url="")
    connections: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            connections.append(self.connection)

        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            state.bodies.append(body.decode(errors="replace"))
            self._reply(state.answer(self.path, json.loads(body) if body else {}))

        def _reply(self, content: JSONObject) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # A client that is killed is not worth a message.
    server.handle_error = lambda request, client_address: None
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        for connection in connections:
            # Kept-alive ones would go on being served.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()
