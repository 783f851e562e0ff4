"""launch/supervise.py: exit codes, signals that are repeated until they are heard, and no orphans."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SUPERVISE = [sys.executable, str(Path(__file__).parents[2] / "launch/supervise.py")]
# Says its number, is deaf for a while as during imports, then waits for SIGUSR1.
SLOW_TO_HEAR = """
import os, pathlib, signal, sys, time
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(1)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(75))
time.sleep(60)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def started(file: Path, *options: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([*SUPERVISE, *options, sys.executable, "-c", SLOW_TO_HEAR, str(file)])
    wait_until(lambda: file.exists() and file.read_text().isdigit())
    return process


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_it_ends_with_the_command_s_code(tmp_path: Path, command: str, code: int):
    file = tmp_path / "code"
    assert subprocess.run([*SUPERVISE, "--code", str(file), "sh", "-c", command]).returncode == code
    assert file.read_text() == str(code)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_repeated_until_it_is_heard(tmp_path: Path, number: signal.Signals):
    process = started(tmp_path / "pid", "--deaf")
    process.send_signal(number)
    assert process.wait(30) == 75


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR2])
def test_ctrl_c_is_passed_on_as_a_signal_that_may_come_twice(tmp_path: Path, number: signal.Signals):
    heard = SLOW_TO_HEAR.replace("signal.SIGUSR1, lambda *_: os._exit(75)", "signal.SIGUSR2, lambda *_: os._exit(130)")
    file = tmp_path / "pid"
    process = subprocess.Popen([*SUPERVISE, "--deaf", sys.executable, "-c", heard, str(file)])
    wait_until(lambda: file.exists() and file.read_text().isdigit())
    for _ in range(3):
        process.send_signal(number)
    assert process.wait(30) == 130


@pytest.mark.slow
def test_sigquit_kills_all_that_the_command_has_started(tmp_path: Path):
    file = tmp_path / "pid"
    script = f"(trap '' TERM INT; echo $BASHPID >{file}; sleep 60) & wait"
    process = subprocess.Popen([*SUPERVISE, "bash", "-c", script])
    wait_until(lambda: file.exists() and file.read_text().strip().isdigit())
    process.send_signal(signal.SIGQUIT)
    assert process.wait(30) == 137
    wait_until(lambda: not Path("/proc", file.read_text().strip()).exists())


@pytest.mark.slow
def test_a_launcher_that_passes_no_signals_on_lives_until_its_ranks_end(tmp_path: Path):
    rank = [*SUPERVISE, "--deaf", sys.executable, "-c", SLOW_TO_HEAR, str(tmp_path / "pid")]
    # It takes longer to end than the pause between two signals.
    launcher = (
        "import subprocess, sys, time; code = subprocess.run(sys.argv[1:]).returncode; time.sleep(3); sys.exit(code)"
    )
    process = subprocess.Popen([*SUPERVISE, "--ranks", sys.executable, "-c", launcher, *rank])
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().isdigit())
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75


@pytest.mark.parametrize("options", [["--deaf"], []])
def test_the_command_does_not_outlive_it(tmp_path: Path, options: list[str]):
    process = started(tmp_path / "pid", *options)
    status = Path("/proc", (tmp_path / "pid").read_text(), "status")
    process.kill()
    process.wait()
    # Where nobody reaps it, it stays as a zombie.
    wait_until(lambda: not status.exists() or "State:\tZ" in status.read_text())
