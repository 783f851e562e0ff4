"""SIGTERM ends a command as Ctrl-C does: it cleans up behind itself and says so in a line."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM has come. Not an error: what keeps on after one, such as a conversion after a bad image, ends."""

    # As shells say of a process that SIGTERM has ended.
    exit_code = 128 + signal.SIGTERM


@contextmanager
def terminable() -> Generator[None, None, None]:
    """Raises Terminated within the block when SIGTERM comes; a second one ends the process at once.

    Where SIGTERM is ignored or has a handler already it stays so: launchers see to their processes themselves.
    Training has handlers of its own from its first step on, and puts this one back at its end.
    """
    process = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() == process:
            raise Terminated
        # A fork of it, which has nothing to say.
        os.kill(os.getpid(), signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
