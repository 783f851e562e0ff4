"""How many threads compute, and how they wait for each other, set before torch is loaded.

The threads of an OpenMP team wait for the next piece of work by spinning. On a machine that others use too, a thread
that spins takes the processor of the one that it waits for. A bounded spin costs next to nothing on a quiet machine and
keeps a busy one going (`docs/benchmarks.md`); sleeping at once (`OMP_WAIT_POLICY=passive`) costs a quiet one a third.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path

from framework.core.errors import ConfigError

SPIN_COUNT = 1_000
"""Turns in which a thread of GNU's OpenMP waits before it sleeps; 300,000 by default. A turn takes some 40 ns: a thread
waits about as long as it takes to sleep and be woken, which costs at most twice what the best choice would."""
BLOCK_MILLISECONDS = 1
"""How long a thread of Intel's and LLVM's OpenMP spins before it sleeps, the shortest time but none; 200 by default."""
MOST_A_CORE = 16
"""Processes or threads of a kind for each CPU core; more than a few do no good, but they work."""
_LOCAL_RANKS = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")
"""Processes of this job on this node, as torchrun and DeepSpeed's launchers say, and MPI's."""
_TASKS, _CORES_OF_A_TASK = "SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK"
"""SLURM's tasks on this node, each bound to processors of its own: the processes themselves, or their launcher."""
_CGROUP = Path("/sys/fs/cgroup")


def prepare_threads(environment: MutableMapping[str, str] = os.environ, *, cgroup: Path = _CGROUP) -> None:
    """Sets what OpenMP's runtimes read when they are loaded; what is set already stays.

    The number of threads is set only where a runtime would take too many: where a container's share of the processors
    is smaller than what it sees of them, and where several processes of a job share a node.

    Args:
        environment: of this process, and so of those that it starts.
        cgroup: where the system tells a container's limits.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
        environment.setdefault("KMP_BLOCKTIME", str(BLOCK_MILLISECONDS))
    if "OMP_NUM_THREADS" not in environment:
        visible = num_cores()
        threads = _fair_threads(environment, min(visible, _quota(cgroup) or visible))
        if threads < visible:
            environment["OMP_NUM_THREADS"] = str(threads)


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_too_many(count: int, name: str) -> None:
    """Whether so many processes or threads can do any good here; far more would only take all of the memory.

    Args:
        count: of them.
        name: of the setting.

    Raises:
        ConfigError: more than `MOST_A_CORE` for each core that this process may use.
    """
    most = MOST_A_CORE * num_cores()
    if count > most:
        raise ConfigError(f"{name} is {count}, on {num_cores()} CPU cores", hint=f"give at most {most} here")


def _fair_threads(environment: MutableMapping[str, str], usable: int) -> int:
    """Threads of one process."""
    tasks = _number(environment.get(_TASKS)) or 1
    ranks = max(tasks, next(filter(None, (_number(environment.get(name)) for name in _LOCAL_RANKS)), 1))
    if own := _number(environment.get(_CORES_OF_A_TASK)):
        # The ranks that a launcher starts within a task share its processors.
        return max(1, min(own * tasks // ranks, usable))
    return max(1, usable // ranks)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _quota(cgroup: Path) -> int | None:
    """Processors that a container may use at most, of version 2 or 1 of control groups; None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    limit, length = _number(quota.strip()), _number(period.strip())
    return max(1, limit // length) if limit and length else None
