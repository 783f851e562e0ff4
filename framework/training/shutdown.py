"""How a process of a distributed run ends with its own exit code (ours)."""

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

import torch.distributed as dist

from framework.core.collectives import rank_and_size
from framework.core.compat.lightning_compat import let_children_end
from framework.core.errors import Interrupted, Preempted

_GRACE_SECONDS = 0.1
_CHILDREN_SECONDS = 2.0
"""For the child whose death was the error to be seen as dead."""
_left_alone: list["subprocess.Popen[bytes]"] | None = None
"""The children, once an error of this process alone has ended its part in a run of several."""


@cache
def end_groups_at_exit() -> None:
    """Lets the threads of process groups finish before the interpreter does, once for a process.

    gloo's threads let go of a collective's tensors a moment after its `wait` has returned, and need the interpreter for
    it; if that is ending, the process is aborted with code 134 in place of its own (pytorch/pytorch#179291), and a
    launcher does not see that a run was preempted. Destroying the groups waits for the threads of all that nobody else
    holds; the others get a moment.
    """
    atexit.register(_end_groups)


def _end_groups() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(_GRACE_SECONDS)


def note_error(error: BaseException, children: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Remembers that an exception ends the part of this process in a run of several.

    The other processes may wait in a collective that will never come about; destroying the groups would wait for them
    in turn, until their watchdog ends them, and the code of the error would be lost. A run that was stopped by a signal
    ends on all of them together.

    Args:
        error: what ends it.
        children: the other processes, where this one has started them.
    """
    global _left_alone
    if rank_and_size()[1] == 1 or isinstance(error, Preempted | Interrupted):
        return
    if _left_alone is None:
        # The last to be registered is the first to be called: before Lightning, too, destroys NCCL's groups.
        atexit.register(_leave_uncaught)
    _left_alone = list(children)
    let_children_end()


def forget_error() -> None:
    """Another run begins in this process."""
    global _left_alone
    _left_alone = None


def leave_others(code: int, *, own: bool = True) -> None:
    """Ends this process at once where its error has left the others alone; else returns.

    Args:
        code: exit code.
        own: the error is this process's own, and not that of a child which took the connection with it.
    """
    if _left_alone is None:
        return
    if not own:
        code = _code_of_children(_left_alone) or code
    for child in _left_alone:
        # Nothing ends a process that waits in a collective but this.
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _code_of_children(children: Sequence["subprocess.Popen[bytes]"]) -> int:
    """The exit code of the first that has failed, 0 where none has."""
    until = time.monotonic() + _CHILDREN_SECONDS
    while children and time.monotonic() < until:
        codes = [code for child in children if (code := child.poll())]
        if codes:
            return codes[0] if codes[0] > 0 else 128 - codes[0]
        time.sleep(0.05)
    return 0


def _leave_uncaught() -> None:
    """At the interpreter's end after an error that nobody has caught, which has been printed."""
    if getattr(sys, "last_value", None) is not None:
        leave_others(1, own=False)
