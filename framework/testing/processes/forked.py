"""Any function on N real processes that start in a tenth of a second: forks of a server that has done the imports.

For tests that start and kill processes often. `run_distributed` uses the real launcher, and takes seconds.
"""

import atexit
import gc
import importlib
import inspect
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from framework.testing.processes import warm_python
from framework.testing.processes.distributed import load_function

_ROOT = Path(__file__).parents[3]
# DeepSpeed first: it looks at what it runs on when it is imported.
_PRELOADED = (
    "framework.testing.processes.deepspeed_cpu",
    "framework.testing.models",
    "framework.testing.images",
    "framework.cli.train",
    "framework.gbc.training.module",
    "framework.testing.agent_training",
    "framework.testing.agents",
    "lightning.pytorch",
    # What would be loaded by every process when it is first used.
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "einops._torch_specific",
    "framework.training.strategies.ddp",
    "framework.training.strategies.fsdp2",
    "framework.training.strategies.single",
    "pytest",
)
_GRACE_SECONDS = 60.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True)
class ForkedRun:
    """How the processes ended.

    Attributes:
        exitcodes: by rank; -9 for a killed one.
        results: what the function returned, of the ranks that came to that.
        output: stdout and stderr of all.
    """

    exitcodes: list[int]
    results: dict[int, Any]
    output: str


class Forked:
    """Processes that call a function as the ranks of one job, with torchrun's environment.

    Args:
        function: of the top level of a module; that module is loaded anew from its file in every process.
        num_processes: how many.
        arguments: keyword arguments, of JSON's types.
        may_fail: a process that dies is no error.

    Attributes:
        pids: of the processes, by rank.
    """

    def __init__(
        self,
        function: Callable[..., object],
        num_processes: int,
        arguments: dict[str, object],
        *,
        may_fail: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._may_fail = may_fail
        self._target = f"{inspect.getfile(function)}:{function.__name__}"
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        order = [self._target, arguments, num_processes, port, self._folder.name]
        stdin, stdout = _server()
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        self.pids: list[int] = json.loads(stdout.readline())

    def exitcodes(self) -> list[int | None]:
        """By rank; None of those that run."""
        files = [Path(self._folder.name, f"{pid}.exit") for pid in self.pids]
        return [int(file.read_text(encoding="utf-8")) if file.exists() else None for file in files]

    def finish(self, timeout: float = 120) -> ForkedRun:
        """Waits for the end of all; those that hang after the death of another are killed a while later.

        Raises:
            AssertionError: a process failed; the message holds the output.
        """
        until = time.monotonic() + timeout
        failed = False
        while None in (codes := self.exitcodes()):
            if any(codes) and not failed:
                failed, until = True, min(until, time.monotonic() + _GRACE_SECONDS)
            if time.monotonic() > until:
                for pid, code in zip(self.pids, codes, strict=True):
                    if code is None:
                        os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        folder = Path(self._folder.name)
        results = {int(path.stem): json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
        output = "\n".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.log")))
        self._folder.cleanup()
        ended = [code for code in codes if code is not None]
        assert self._may_fail or not any(ended), f"{self._target} ended with {ended}:\n{output}"
        return ForkedRun(exitcodes=ended, results=results, output=output)


def run_forked(
    function: Callable[..., object],
    num_processes: int,
    *,
    may_fail: bool = False,
    timeout: float = 120,
    **arguments: object,
) -> ForkedRun:
    """Calls a function on processes of its own, and waits for them.

    Args:
        function: of the top level of a module; that module is loaded anew from its file in every process.
        num_processes: how many.
        may_fail: a process that dies is no error.
        timeout: seconds after which those that still run are killed.
        **arguments: of the function, of JSON's types.

    Raises:
        AssertionError: a process failed; the message holds the output.
    """
    return Forked(function, num_processes, arguments, may_fail=may_fail).finish(timeout)


def run_command(arguments: Sequence[str], folder: str, environment: dict[str, str]) -> None:
    """`framework` with these arguments, as the function of a `Forked`: its exit code is the process's.

    Args:
        arguments: of the command line.
        folder: to run in.
        environment: variables to set.
    """
    from framework.cli.main import main

    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["framework", *arguments]
    main(arguments)


def start_command(*arguments: str, environment: dict[str, str] | None = None) -> Forked:
    """`framework` in a process of its own, which may fail; it leads a process group that its workers are in."""
    given = {"arguments": arguments, "folder": str(Path.cwd()), "environment": environment or {}}
    return Forked(run_command, 1, given, may_fail=True)


def run_warm(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
    """Stands for `subprocess.run` of `python -m framework.cli.main ...`, without a new interpreter and its imports."""
    assert list(command[:3]) == [sys.executable, "-m", "framework.cli.main"], command
    ended = start_command(*command[3:]).finish(timeout=300)
    return subprocess.CompletedProcess(command, ended.exitcodes[0], stdout="", stderr=ended.output)


@cache
def _server() -> tuple[IO[str], IO[str]]:
    """Where to write orders to the server and read its answers; it ends with this process."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    # Of a W&B process that this one has started: they start their own.
    environment.pop("WANDB_SERVICE", None)
    arguments = ["-m", "framework.testing.processes.forked"]
    # Pretended GPUs are there from the start of a process or never.
    address = None if "PRETEND_CUDA_BUILD" in os.environ else os.environ.get(warm_python.ADDRESS)
    process = subprocess.Popen(
        warm_python.command(address, *arguments) if address else [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def stop() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()

    atexit.register(stop)
    return process.stdin, process.stdout


def _serve() -> None:
    for module in _PRELOADED:
        with suppress(ImportError):
            importlib.import_module(module)
    # Collections in the processes pass over what is loaded by now: it takes them no time, and its pages stay shared.
    gc.collect()
    gc.freeze()
    folders: dict[int, str] = {}
    while True:
        ready, _, _ = select.select([0], [], [], _POLL_SECONDS)
        if ready:
            # Line by line: `select` does not see what a buffer has taken.
            line = bytearray()
            while (byte := os.read(0, 1)) not in (b"\n", b""):
                line += byte
            if not line:
                break
            target, arguments, num_processes, port, folder = json.loads(line)
            pids = []
            for rank in range(num_processes):
                pid = os.fork()
                if pid == 0:
                    _run(target, arguments, rank, num_processes, port, folder)
                pids.append(pid)
                folders[pid] = folder
            os.write(1, (json.dumps(pids) + "\n").encode())
        while folders and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            # Renamed: it is read as soon as it is there.
            partial = Path(folders.pop(pid), f"{pid}.partial")
            with suppress(FileNotFoundError):
                partial.write_text(str(os.waitstatus_to_exitcode(status)), encoding="utf-8")
                partial.rename(partial.with_suffix(".exit"))
    for pid in folders:
        os.kill(pid, signal.SIGKILL)


def _run(target: str, arguments: dict[str, object], rank: int, num_processes: int, port: int, folder: str) -> None:
    """What each process does; it does not return."""
    # Its workers can be killed with it.
    os.setsid()
    log = os.open(f"{folder}/{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    if num_processes > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(num_processes),
            "LOCAL_WORLD_SIZE": str(num_processes),
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "forked",
        }
    code = 1
    try:
        result = load_function(target)(**arguments)
        Path(folder, f"{rank}.json").write_text(json.dumps(result), encoding="utf-8")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not the interpreter's end: threads of process groups may hang in it.
        os._exit(code)


if __name__ == "__main__":
    _serve()
