"""Python that has torch and other large libraries loaded when it begins: forks of one process, which loads them once.

    python warm_python.py ADDRESS -c CODE
    python warm_python.py ADDRESS -m MODULE

is as `python -c CODE` and `python -m MODULE`, with the address of the server in `start_server`. For the processes of
tests: several need the same libraries, and importing them takes five seconds of a processor each time. This file is run
by its path and imports nothing of the framework, which each test process loads as it is told.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ADDRESS = "FRAMEWORK_WARM_PYTHON"
"""Variable of the environment with the address, in all processes below the one that has started the server."""
_PRELOADED = (
    "torch",
    "torch._dynamo",
    "lightning.pytorch",
    "transformers.modeling_utils",
    "sklearn.svm",
    "peft",
    "deepspeed.runtime.zero.muon.muon_optimizer",
)
# Not W&B: it makes a temporary folder when it is loaded, which the first fork to end would remove.
_LONGEST_ORDER = 2**20
_POLL_SECONDS = 0.05


def start_server() -> str | None:
    """Starts the server, which ends with this process, and says where it is; None on machines that have no use of it.

    What has asked a GPU's driver anything must not fork, and these libraries may when they are loaded.
    """
    if sys.platform != "linux" or any(Path("/dev").glob("nvidia*")):
        return None
    folder = tempfile.mkdtemp(prefix="framework-")
    address = f"{folder}/warm"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        # Before the server runs: who comes early waits for it.
        listener.bind(address)
        listener.listen()
        number = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, __file__, str(number), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=[number],
            # DeepSpeed looks at what it runs on when it is loaded.
            env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        )
    os.environ[ADDRESS] = address

    def stop() -> None:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(stop)
    return address


def command(address: str, *arguments: str) -> list[str]:
    """The command line of a warm Python."""
    return [sys.executable, __file__, address, *arguments]


def _serve(listener: socket.socket, parent: int) -> None:
    """Forks as it is asked; returns in each fork, when that is to begin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    address = listener.getsockname()
    # What libraries do to the filters of warnings does not stay, as under pytest.
    with warnings.catch_warnings():
        for module in _PRELOADED:
            with suppress(ImportError):
                importlib.import_module(module)
    # Collections in the forks pass over what is loaded by now: it takes them no time, and its pages stay shared.
    gc.collect()
    gc.freeze()
    # By the number of the fork; None where the client has ended before it.
    clients: dict[int, socket.socket | None] = {}
    while os.getppid() == parent:
        waiting = {client: pid for pid, client in clients.items() if client is not None}
        ready = select.select([listener, *waiting], [], [], _POLL_SECONDS)[0]
        for client in waiting.keys() & set(ready):
            # A client says nothing after its order: it has ended, and its fork ends with it.
            os.kill(waiting[client], signal.SIGTERM)
            clients[waiting[client]] = client.close()
        if listener in ready:
            client, _ = listener.accept()
            order, streams, _, _ = socket.recv_fds(client, _LONGEST_ORDER, 3)
            if (pid := os.fork()) == 0:
                for each in (listener, client, *waiting):
                    each.close()
                _become(json.loads(order), streams)
                return
            for stream in streams:
                os.close(stream)
            clients[pid] = client
        for pid, client in list(clients.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del clients[pid]
                if client is not None:
                    with client, suppress(OSError):
                        client.send(str(os.waitstatus_to_exitcode(status)).encode())
    shutil.rmtree(Path(address).parent, ignore_errors=True)
    _end()


def _end(*_: object) -> None:
    sys.exit(0)


def _become(order: dict[str, object], streams: Sequence[int]) -> None:
    """Makes this fork what its client is: its streams, its variables and its folder."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    environment, folder, arguments = order["environment"], order["folder"], order["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(folder))
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = ["", *(path for path in given if path not in sys.path)]
    sys.argv = ["warm", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _begin(how: str, what: str, *arguments: str) -> None:
    """As the interpreter does for `-c CODE` or `-m MODULE`."""
    if how == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    sys.argv = ["-c", *arguments]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    exec(what, main.__dict__)


def _ask(address: str, arguments: Sequence[str]) -> int:
    """Has the server run it with this process's streams, and waits for its end: its exit code."""
    # Ctrl-C reaches the fork too, which says what is to be done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = {"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(address)
        socket.send_fds(server, [json.dumps(order).encode()], [0, 1, 2])
        # The fork's alone: who reads from them sees its end.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):
            os.dup2(nowhere, stream)
        code = int(server.recv(16) or b"1")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    # Modules beside this one are none of the top level.
    del sys.path[0]
    if sys.argv[1].isdigit():
        _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
        _begin(*sys.argv[1:])
    else:
        # `-u` is execnet's, which writes to descriptors.
        sys.exit(_ask(sys.argv[1], [word for word in sys.argv[2:] if word != "-u"]))
