"""A real HTTP server over a folder that fails when it is told to."""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

Fault = Literal["500", "404", "hang", "drop", "flip", "short", "slow"]


@dataclass(frozen=True, kw_only=True)
class FaultyServer:
    """A server and what it does.

    Attributes:
        url: of the folder.
        faults: for each file name, what becomes of its next requests, one after the other; then all is well.
        requests: number of GET requests for each file name.
        release: set to let go of the requests that hang.
    """

    url: str
    faults: defaultdict[str, list[Fault]]
    requests: Counter[str]
    release: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve_with_faults(folder: Path) -> Iterator[FaultyServer]:
    """Serves the files of a folder until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    faulty = FaultyServer(url=f"http://127.0.0.1:{server.server_port}", faults=defaultdict(list), requests=Counter())
    server.faulty, server.folder = faulty, folder
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield faulty
    finally:
        faulty.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    faulty: FaultyServer
    folder: Path


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        faulty = self.server.faulty
        faulty.requests[name] += 1
        fault = faulty.faults[name].pop(0) if faulty.faults[name] else None
        path = self.server.folder / self.path.lstrip("/")
        if fault == "500" or fault == "404" or not path.is_file():
            self.send_error(500 if fault == "500" else 404)
            return
        data = path.read_bytes()
        middle = len(data) // 2
        if fault == "flip":
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        self.send_response(200)
        if fault == "short":
            # No length: only the size in the manifest can tell.
            self.send_header("Connection", "close")
            data = data[:middle]
        else:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:middle])
        self.wfile.flush()
        if fault == "hang":
            faulty.release.wait()
        if fault == "slow":
            faulty.release.wait(0.6)
        if fault in ("hang", "drop"):
            self.close_connection = True
            return
        self.wfile.write(data[middle:])
        self.close_connection = fault == "short"

    def log_message(self, format: str, *args: object) -> None:
        pass
