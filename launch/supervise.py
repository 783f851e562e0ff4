#!/usr/bin/env python3
"""Runs a command and ends with its exit code: supervise.py [--deaf | --ranks] [--code FILE] COMMAND...

SIGUSR1 and SIGTERM to this process are passed on as SIGUSR1, SIGUSR2 and SIGINT (Ctrl-C) as SIGUSR2, again and again
until the command ends: a process that is still starting up does not hear the first ones. SIGQUIT ends the command and
all that it has started at once. With --deaf the command starts with the others ignored, so that one that comes during
its imports does not kill it; without, with SIGINT ignored, which reaches all processes of a terminal. The command does
not outlive this process. The code is also written to FILE, for shells: bash loses the code of a child that ends while a
trap runs (seen in 3 of 40). With --ranks signals go to the processes of rank.sh below the command, for one that passes
none on, as DeepSpeed's launcher; where they are on other machines, it gets SIGTERM, by which it ends them.
"""

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PASSED_ON = {
    signal.SIGUSR1: signal.SIGUSR1,
    signal.SIGTERM: signal.SIGUSR1,
    signal.SIGUSR2: signal.SIGUSR2,
    signal.SIGINT: signal.SIGUSR2,
}
EVENTS = {*PASSED_ON, signal.SIGQUIT, signal.SIGCHLD}
PAUSE_SECONDS = 2
PR_SET_PDEATHSIG = 1


def supervise(command: "list[str]", deaf: bool, ranks: bool = False) -> int:
    """Exit code of the command; 128 and its number for a signal that killed it."""
    # They are waited for, never handled: nothing can come at the wrong moment.
    signal.pthread_sigmask(signal.SIG_BLOCK, EVENTS)
    for number in (signal.SIGINT, signal.SIGQUIT):
        # A shell starts what it does not wait for with these ignored, and such a signal may never come.
        signal.signal(number, signal.SIG_DFL)

    def before_command() -> None:
        # A command that outlived this process would train on beside the run that is started again; one that starts
        # others (srun, torchrun) has to end them. Linux only, as the launchers are.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL if deaf else signal.SIGTERM)
        for number in PASSED_ON if deaf else (signal.SIGINT,):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, EVENTS)

    try:
        child = subprocess.Popen(command, preexec_fn=before_command)
    except OSError as error:
        print(f"error: {command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    heard, told = None, False
    while child.poll() is None:
        if heard is not None and not ranks:
            child.send_signal(heard)
        elif heard is not None and tell_ranks(child.pid, heard):
            told = True
        elif heard is not None and not told:
            told = True
            if is_elsewhere(child.pid):
                child.terminate()
            else:
                # None has started: there is nothing to save. (Those that were told and have ended, saved.)
                kill_with_children(child.pid)
        event = signal.sigwaitinfo(EVENTS) if heard is None else signal.sigtimedwait(EVENTS, PAUSE_SECONDS)
        if event is not None and event.si_signo == signal.SIGQUIT:
            kill_with_children(child.pid)
            child.wait()
        elif event is not None and event.si_signo in PASSED_ON:
            # A user's wish counts more than a scheduler's.
            heard = signal.SIGUSR2 if heard == signal.SIGUSR2 else PASSED_ON[signal.Signals(event.si_signo)]
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def kill_with_children(pid: int) -> None:
    """Kills a process and all that it has started, and these."""
    for each in with_children(pid):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def tell_ranks(pid: int, number: signal.Signals) -> bool:
    """Sends a signal to the processes of rank.sh below a process; whether there are any."""
    found = False
    for each in with_children(pid):
        with suppress(OSError):
            # After the interpreter and this file.
            if words_of(each)[2:3] == ["--deaf"]:
                os.kill(each, number)
                found = True
    return found


def is_elsewhere(pid: int) -> bool:
    """Whether a process has started others on other machines, by pdsh."""
    return any(word.endswith("pdsh") for each in with_children(pid) for word in words_of(each)[:1])


def words_of(pid: int) -> "list[str]":
    """The command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return []


def with_children(pid: int) -> "list[int]":
    """A process, all that it has started, and these."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name before it may hold anything.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def main() -> int:
    """Runs the program of the command line; its exit code."""
    words = sys.argv[1:]
    mode = words.pop(0) if words[0] in ("--deaf", "--ranks") else ""
    file = Path(words[1]) if words[0] == "--code" else None
    code = supervise(words[2:] if file else words, deaf=mode == "--deaf", ranks=mode == "--ranks")
    if file:
        file.write_text(str(code))
    return code


if __name__ == "__main__":
    sys.exit(main())
