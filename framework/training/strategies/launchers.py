"""How many processes a launcher has started, by the environment that it gives them: compared with what is asked for.

Lightning compares these numbers for some launchers and some strategies. Where it does not, a process that is alone
takes itself for one of several and trains on its share of the samples, or several that each take themselves for the
only one train the same run.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lightning.fabric.plugins.environments import LSFEnvironment, MPIEnvironment

from framework.core.errors import ConfigError

_INTERACTIVE = ("bash", "interactive")
"""Names of SLURM jobs in whose shell Lightning starts the processes itself."""
_OTHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "FLUX_JOB_SIZE", "JSM_NAMESPACE_SIZE")
"""How many processes mpirun, its relatives and jsrun have started."""
_HAND = "whoever set RANK and WORLD_SIZE"
_CHILDRENS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What Lightning tells the processes that it starts itself; the first, which has started them, has none of it."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a launcher has started.

    Attributes:
        launcher: its name.
        num_processes: of all nodes together.
        hint: how to let it start as many as are asked for.
        num_nodes: where they have to be those of the trainer.
    """

    launcher: str
    num_processes: int
    hint: str
    num_nodes: int | None = None


def found_launch(environment: Mapping[str, str]) -> Launch | None:
    """The launcher of this process; None where nothing tells of one, and Lightning starts the others, if any.

    In the order in which Lightning looks for them: torchrun may run inside of a SLURM job.

    Args:
        environment: variables of this process.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        hint = "let --nnodes and --nproc-per-node be the same on every node, and those of the trainer"
        return _launch("torchrun", environment, "WORLD_SIZE", hint)
    if "CROSS_SIZE" in environment:
        hint = "give every host of the hostfile the same slots, and the trainer their number"
        return _launch("DeepSpeed's launcher", environment, "WORLD_SIZE", hint)
    if "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in _INTERACTIVE:
        hint = "start it by launch/slurm/submit.sh, or by srun with --nodes and --ntasks-per-node, without --ntasks"
        if "SLURM_STEP_ID" not in environment:
            # Only srun makes steps; what a job's script starts by itself is one process.
            return Launch(launcher="SLURM", num_processes=1, hint=hint)
        nodes = _number(environment, "SLURM_NNODES", hint)
        return replace(_launch("SLURM", environment, "SLURM_NTASKS", hint), num_nodes=nodes)
    for name in _OTHERS:
        if name in environment:
            hint = "start as many as the trainer's nodes times devices"
            return _launch(f"a launcher that sets {name}", environment, name, hint)
    return _by_hand(environment)


def _by_hand(environment: Mapping[str, str]) -> Launch | None:
    """RANK or LOCAL_RANK as set by hand or by an operator of Kubernetes; Lightning itself sets no RANK."""
    hint = "start it by torchrun, which launch/torchrun/train.sh does, or unset RANK, LOCAL_RANK and WORLD_SIZE"
    if "RANK" not in environment:
        # With it Lightning starts no others: it takes itself for one of them.
        is_child = all(environment.get(name) for name in _CHILDRENS) and environment["LOCAL_RANK"] != "0"
        if "LOCAL_RANK" not in environment or is_child:
            return None
        return _launch("whoever set LOCAL_RANK", {"WORLD_SIZE": "1", **environment}, "WORLD_SIZE", hint)
    world = environment.get("WORLD_SIZE", "1")
    is_node = any(name in environment for name in ("NODE_RANK", "GROUP_RANK"))
    if "LOCAL_RANK" not in environment and (world == "1" or is_node):
        return None
    return _launch(_HAND, {"WORLD_SIZE": "1", **environment}, "WORLD_SIZE", hint)


def _launch(launcher: str, environment: Mapping[str, str], name: str, hint: str) -> Launch:
    return Launch(launcher=launcher, num_processes=_number(environment, name, hint), hint=hint)


def _number(environment: Mapping[str, str], name: str, hint: str) -> int:
    value = environment.get(name, "")
    if not value.isdecimal():
        raise ConfigError(f"{name} is {value!r} in the environment, and not a number of processes", hint=hint)
    return int(value)


def check_launched(*, num_nodes: int, num_devices: int) -> None:
    """Whether as many processes were started as the trainer is asked to be.

    Args:
        num_nodes: the trainer's.
        num_devices: the trainer's, of each node.

    Raises:
        ConfigError: more or fewer.
    """
    launch, asked = found_launch(os.environ), num_nodes * num_devices
    if launch is None:
        _refuse_lone_node(num_nodes)
        return
    if launch.num_processes == asked and launch.num_nodes in (None, num_nodes):
        _refuse_unheard(launch)
        return
    nodes = f" on {launch.num_nodes} node(s)" if launch.num_nodes is not None else ""
    started = f"{launch.launcher} has started {launch.num_processes} process(es){nodes}"
    wanted = f"trainer.num_nodes {num_nodes} x trainer.devices {num_devices} asks for {asked}"
    raise ConfigError(f"{started}, and {wanted}", hint=launch.hint)


def _refuse_lone_node(num_nodes: int) -> None:
    """One of several nodes has to know where they meet, or it waits for the others in vain."""
    if num_nodes > 1 and "MASTER_ADDR" not in os.environ:
        problem = f"trainer.num_nodes {num_nodes}, and nothing tells where the nodes meet"
        hint = "use one of launch/, or set MASTER_ADDR, MASTER_PORT and NODE_RANK on every node"
        raise ConfigError(problem, hint=hint)


def _refuse_unheard(launch: Launch) -> None:
    """Refuses a launcher of as many as were asked for that Lightning does not hear: it would start them once more."""
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if launch.launcher == "SLURM" and tasks != "1" and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ConfigError(f"SLURM_NTASKS is {tasks}, and SLURM_NTASKS_PER_NODE is not set", hint=launch.hint)
    if launch.launcher == _HAND and "LOCAL_RANK" not in os.environ:
        # Each of them would take itself for the first node.
        problem = f"{launch.launcher} has set neither LOCAL_RANK nor NODE_RANK, by which the processes know each other"
        raise ConfigError(
            problem, hint="start it by torchrun, which launch/torchrun/train.sh does, or set NODE_RANK too"
        )
    of_mpi = any(name in launch.launcher for name in _OTHERS) and "LOCAL_RANK" not in os.environ
    if launch.num_processes > 1 and of_mpi and not (MPIEnvironment.detect() or LSFEnvironment.detect()):
        started = f"{launch.launcher} has started {launch.num_processes} process(es), which do not hear of each other"
        raise ConfigError(started, hint="pip install mpi4py, or start it by torchrun (launch/torchrun/train.sh)")
