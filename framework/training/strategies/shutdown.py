"""How a process of a distributed run ends with its own exit code (ours)."""

import atexit
import time
from functools import cache

import torch.distributed as dist

_GRACE_SECONDS = 0.1


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
