"""Any function on N processes with a GPU each."""

import os
from collections.abc import Callable
from typing import Any

from framework.testing.processes.distributed import run_distributed
from framework.testing.processes.forked import Forked


def run_on_gpus(function: Callable[..., object], num_processes: int, **arguments: object) -> dict[int, Any]:
    """Calls a function on processes that may each use a GPU, and waits for them.

    Real GPUs want new interpreters: a process that forks must never have asked its driver anything. Pretended ones
    (`tests/pretend_cuda`) have no driver, and forks start in a tenth of a second.

    Args:
        function: of the top level of a module; that module is loaded anew from its file in every process.
        num_processes: how many.
        **arguments: of the function, of JSON's types.

    Returns:
        What the function returned on each rank, by rank.

    Raises:
        AssertionError: a process failed; the message holds the output.
    """
    if "PRETEND_CUDA_BUILD" in os.environ:
        return Forked(function, num_processes, arguments).finish().results
    return run_distributed(function, num_processes, arguments=arguments).results
