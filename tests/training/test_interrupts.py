"""Ctrl-C is counted while the main thread is busy; what a run does then is tested with the callback."""

import os
import signal
import time

import pytest

from framework.training.interrupts import FIRST, InterruptWatch


def press(capfd: pytest.CaptureFixture[str], *, speaks: bool) -> str:
    """What the first Ctrl-C prints."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        watch = InterruptWatch(lambda: None, code=130, speaks=speaks)
        os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + 5
        printed = ""
        while speaks and not printed and time.monotonic() < until:
            time.sleep(0.01)
            printed += capfd.readouterr().err
        watch.stop()
        return printed + capfd.readouterr().err
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_process_of_a_run_answers(capfd: pytest.CaptureFixture[str]):
    assert press(capfd, speaks=True) == FIRST.decode()
    assert press(capfd, speaks=False) == ""


def test_a_watch_that_has_stopped_leaves_python_as_it_was():
    before = signal.set_wakeup_fd(-1)
    watch = InterruptWatch(lambda: None, code=130, speaks=False)
    watch.stop()
    assert signal.set_wakeup_fd(before) == -1
