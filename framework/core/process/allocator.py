"""What the C library does with memory that is freed, set before the first tensor is made.

A training step frees its activations at its end and needs as much again a moment later. GNU's C library hands freed
memory back to the system by default, which then has to clear every page anew: a sixth of the time of a step of a small
model (`docs/benchmarks.md`). Kept, it is no more than what the step before had taken.
"""

import ctypes
import os
from collections.abc import Mapping

KEPT_BYTES = 2**30
"""Freed memory that a process keeps at most at the top of its heap; 128 KiB by default, growing up to 64 MiB."""
LARGEST_BYTES = 2**25
"""Pieces from this size on are the system's own and go back to it; the largest that the library allows."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The names of these settings in `malloc.h`."""
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Lets this process, and those forked from it, keep freed memory for the next step.

    Nothing is done where the environment sets the allocator itself (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`,
    `GLIBC_TUNABLES`), and where the C library is not GNU's.

    Args:
        environment: of this process.

    Returns:
        Whether it is set now.
    """
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", "") or any(name in environment for name in _VARIABLES):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    settings = {_TRIM_THRESHOLD: KEPT_BYTES, _MMAP_THRESHOLD: LARGEST_BYTES}
    return all(set_option(option, value) == 1 for option, value in settings.items())
