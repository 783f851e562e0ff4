"""Ctrl-C while training: the first is answered at once, the second ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable

FIRST = b"\nCtrl-C: the run saves itself after this step and stops. Once more: it stops at once, and saves nothing.\n"
SECOND = b"\nCtrl-C again: stopped at once, the steps since the last checkpoint are lost\n"


class InterruptWatch:
    """Counts the times that SIGINT comes, in a thread: the main one may be busy in a step, or hang in a collective.

    Python's own handler, which runs in the main thread, is the caller's.

    Args:
        at_second: called before the process ends at the second.
        code: that it then ends with.
        speaks: it answers in words; one process of a run is enough.
    """

    def __init__(self, at_second: Callable[[], None], *, code: int, speaks: bool) -> None:
        self._at_second, self._code, self._speaks = at_second, code, speaks
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._read, args=(reading,), daemon=True, name="Ctrl-C").start()

    def stop(self) -> None:
        """Ends the watch."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writing)

    def _read(self, reading: int) -> None:
        times = 0
        while numbers := os.read(reading, 64):
            for _ in range(numbers.count(signal.SIGINT)):
                times += 1
                self._answer(times)
        os.close(reading)

    def _answer(self, times: int) -> None:
        if self._speaks:
            # Past whatever the main thread holds: a logger's lock, the terminal's.
            os.write(2, FIRST if times == 1 else SECOND)
        if times > 1:
            try:
                self._at_second()
            finally:
                os._exit(self._code)
