"""Any function on N real processes: torchrun with gloo on the CPU, started from a test."""

import importlib.util
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framework.testing.processes import warm_python

_ROOT = Path(__file__).parents[3]
_MARK = "FRAMEWORK_TEST_RUN"
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class DistributedRun:
    """How a run ended.

    Attributes:
        returncode: torchrun's.
        results: what the function returned on each rank, as far as it came to that, by rank.
        output: stdout and stderr of all.
    """

    returncode: int
    results: dict[int, Any]
    output: str


def run_distributed(
    function: Callable[..., object],
    num_processes: int,
    *,
    arguments: dict[str, object] | None = None,
    timeout: float = 300,
    may_fail: bool = False,
) -> DistributedRun:
    """Calls a function on `num_processes` processes of a torchrun of its own.

    Args:
        function: of the top level of a module; that module is loaded anew from its file in every process.
        num_processes: how many.
        arguments: keyword arguments, of JSON's types.
        timeout: seconds after which all of them are killed.
        may_fail: a process that dies, as in the tests of faults, is no error.

    Raises:
        AssertionError: a process failed, the time was up, or processes outlived torchrun; the message holds the output.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = f"{inspect.getfile(function)}:{function.__name__}"
        launcher = ["-m", "torch.distributed.run"]
        address = os.environ.get(warm_python.ADDRESS)
        command = warm_python.command(address, *launcher) if address else [sys.executable, *launcher]
        command += [
            "--nproc-per-node",
            str(num_processes),
            "--rdzv-backend",
            "c10d",
            "--rdzv-endpoint",
            "localhost:0",
            "-m",
            "framework.testing.processes.distributed",
        ]
        command += [target, json.dumps(arguments or {}), folder]
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # Every process of the run has the folder in its environment, and is found by it.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), _MARK: folder}
        log = Path(folder) / "output"
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
            try:
                process.wait(timeout)
                late = ""
            except subprocess.TimeoutExpired:
                late = f"took over {timeout} s"
            left = [] if late else _wait_for_end(folder)
            for pid in _processes(folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
        output = log.read_text(errors="replace")
        assert not late, f"{target} on {num_processes} processes {late}:\n{output}"
        assert not left, f"{target} on {num_processes} processes left {len(left)} behind:\n{output}"
        assert may_fail or process.returncode == 0, f"{target} on {num_processes} processes failed:\n{output}"
        results = {int(path.stem): json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
        return DistributedRun(returncode=process.returncode, results=results, output=output)


def _wait_for_end(folder: str) -> list[int]:
    """Processes of a run that are still there a while after torchrun has ended."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while (left := _processes(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def _processes(folder: str) -> list[int]:
    """Processes of a run."""
    found, mark = [], f"{_MARK}={folder}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def load_function(target: str) -> Callable[..., object]:
    """The function of `FILE:NAME`, its module loaded anew from the file."""
    path, _, name = target.rpartition(":")
    spec = importlib.util.spec_from_file_location("distributed_target", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["distributed_target"] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


def _main(target: str, arguments: str, folder: str) -> None:
    """What each process does."""
    result = load_function(target)(**json.loads(arguments))
    (Path(folder) / f"{os.environ['RANK']}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    _main(*sys.argv[1:])
