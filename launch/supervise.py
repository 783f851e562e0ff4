#!/usr/bin/env python3
"""Runs a command and ends with its exit code: supervise.py [--deaf] [--code FILE] COMMAND...

SIGUSR1 and SIGTERM to this process are passed on as SIGUSR1, again and again until the command ends: a process that is
still starting up does not hear the first ones. With --deaf the command starts with both ignored, so that one that comes
during its imports does not kill it. The command does not outlive this process. The code is also written to FILE, for
shells: bash loses the code of a child that ends while a trap runs (seen in 3 of 40).
"""

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

SIGNALS = {signal.SIGUSR1, signal.SIGTERM}
EVENTS = SIGNALS | {signal.SIGCHLD}
PAUSE_SECONDS = 2
PR_SET_PDEATHSIG = 1


def supervise(command: "list[str]", deaf: bool) -> int:
    """Exit code of the command; 128 and its number for a signal that killed it."""
    # They are waited for, never handled: nothing can come at the wrong moment.
    signal.pthread_sigmask(signal.SIG_BLOCK, EVENTS)

    def before_command() -> None:
        # A command that outlived this process would train on beside the run that is started again; one that starts
        # others (srun, torchrun) has to end them. Linux only, as the launchers are.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL if deaf else signal.SIGTERM)
        if deaf:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, EVENTS)

    try:
        child = subprocess.Popen(command, preexec_fn=before_command)
    except OSError as error:
        print(f"error: {command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return 127
    heard = False
    while child.poll() is None:
        if heard:
            child.send_signal(signal.SIGUSR1)
        event = signal.sigtimedwait(EVENTS, PAUSE_SECONDS) if heard else signal.sigwaitinfo(EVENTS)
        heard = heard or (event is not None and event.si_signo in SIGNALS)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def main() -> int:
    """Runs the program of the command line; its exit code."""
    words = sys.argv[1:]
    deaf = words[0] == "--deaf"
    words = words[deaf:]
    file = Path(words[1]) if words[0] == "--code" else None
    code = supervise(words[2:] if file else words, deaf)
    if file:
        file.write_text(str(code))
    return code


if __name__ == "__main__":
    sys.exit(main())
