"""As many processes train as were asked for, whoever has started them."""

import os

import pytest

from framework.core.errors import ConfigError
from framework.training.strategies.launchers import check_launched, found_launch

SRUN = {
    "SLURM_JOB_NAME": "train",
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
}
LAUNCHERS = {
    "torchrun in a SLURM job": {**SRUN, "SLURM_NTASKS": "1", "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4"},
    "DeepSpeed": {"CROSS_SIZE": "2", "LOCAL_SIZE": "2", "WORLD_SIZE": "4"},
    "srun": SRUN,
    "mpirun, with names for Lightning": {
        "OMPI_COMM_WORLD_SIZE": "4",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
    },
    "by hand": {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4"},
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    prefixes = (
        "TORCHELASTIC_",
        "WORLD_",
        "RANK",
        "LOCAL_",
        "NODE_",
        "MASTER_",
        "CROSS_",
        "SLURM_",
        "PMI_",
        "OMPI_",
        "GROUP_",
    )
    for name in [each for each in os.environ if each.startswith(prefixes)]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_as_many_as_were_asked_for_on_every_launcher(environment: pytest.MonkeyPatch, launcher: str):
    for name, value in LAUNCHERS[launcher].items():
        environment.setenv(name, value)
    check_launched(num_nodes=2, num_devices=2)
    for num_nodes, num_devices, asked in ((1, 1, 1), (2, 1, 2), (2, 4, 8)):
        with pytest.raises(ConfigError, match=rf"started 4 process.* asks for {asked}: "):
            check_launched(num_nodes=num_nodes, num_devices=num_devices)


def test_a_job_of_two_devices_with_one_task(environment: pytest.MonkeyPatch):
    """`--nodes 1 --devices 2 --ntasks=1`: one process that takes itself for 0 of 2."""
    for name, value in {**SRUN, "SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "2"}.items():
        environment.setenv(name, value)
    with pytest.raises(
        ConfigError, match=r"SLURM has started 1 process\(es\) on 1 node.* asks for 2: .*without --ntasks"
    ):
        check_launched(num_nodes=1, num_devices=2)


def test_the_same_number_on_other_nodes(environment: pytest.MonkeyPatch):
    for name, value in SRUN.items():
        environment.setenv(name, value)
    with pytest.raises(
        ConfigError, match=r"4 process\(es\) on 2 node\(s\), and trainer.num_nodes 1 x trainer.devices 4"
    ):
        check_launched(num_nodes=1, num_devices=4)


def test_a_script_of_a_job_that_forgets_srun(environment: pytest.MonkeyPatch):
    for name, value in {**SRUN, "SLURM_PROCID": "0"}.items():
        environment.setenv(name, value)
    environment.delenv("SLURM_STEP_ID")
    check_launched(num_nodes=1, num_devices=1)
    with pytest.raises(ConfigError, match=r"started 1 process.*by srun"):
        check_launched(num_nodes=2, num_devices=2)


@pytest.mark.parametrize(
    "environment_without_launcher",
    [
        {},
        # A shell of salloc or srun --pty, in which Lightning starts the processes.
        {**SRUN, "SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "1"},
        # What Lightning itself sets.
        {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"},
        # Of no meaning without a rank.
        {"WORLD_SIZE": "4"},
        # The only pod.
        {"RANK": "0", "WORLD_SIZE": "1"},
    ],
)
def test_where_lightning_starts_the_processes_nothing_is_compared(environment_without_launcher: dict[str, str]):
    assert found_launch(environment_without_launcher) is None


@pytest.mark.parametrize(
    ("given", "devices", "told"),
    [
        # Lightning would wait for the others, which nobody starts.
        ({"LOCAL_RANK": "0"}, 2, "whoever set LOCAL_RANK has started 1 process.* asks for 2: .*unset RANK, LOCAL_RANK"),
        ({"LOCAL_RANK": "1"}, 2, "whoever set LOCAL_RANK has started 1"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "4"}, 1, "whoever set LOCAL_RANK has started 4"),
        # It would start them all in each of them.
        ({"OMPI_COMM_WORLD_SIZE": "2"}, 2, "2 process.*, which do not hear of each other: pip install mpi4py, or"),
        ({"MV2_COMM_WORLD_SIZE": "2"}, 1, "MV2_COMM_WORLD_SIZE has started 2 process"),
        # It would end with a traceback.
        ({"SLURM_NTASKS": "4"}, 1, "SLURM_NTASKS is 4, and SLURM_NTASKS_PER_NODE is not set: start it by launch/slurm"),
        ({**SRUN, "SLURM_NTASKS": "many"}, 1, "SLURM_NTASKS is 'many' in the environment, and not a number"),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "two"}, 1, "WORLD_SIZE is 'two' in the environment"),
        ({"TORCHELASTIC_RUN_ID": "x"}, 1, "WORLD_SIZE is '' in the environment"),
    ],
)
def test_variables_that_nobody_can_go_by(
    environment: pytest.MonkeyPatch, given: dict[str, str], devices: int, told: str
):
    for name, value in given.items():
        environment.setenv(name, value)
    with pytest.raises(ConfigError, match=told):
        check_launched(num_nodes=1, num_devices=devices)


def test_an_operator_of_kubernetes_without_torchrun(environment: pytest.MonkeyPatch):
    """Lightning reads no RANK: each pod would be the first node, and wait for the others at another's address."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "train-master-0"}.items():
        environment.setenv(name, value)
    with pytest.raises(ConfigError, match=r"started 4 process.* asks for 2: "):
        check_launched(num_nodes=2, num_devices=1)
    with pytest.raises(ConfigError, match=r"has set neither LOCAL_RANK nor NODE_RANK.*torchrun.*or set NODE_RANK"):
        check_launched(num_nodes=4, num_devices=1)
    for name in ("NODE_RANK", "GROUP_RANK"):
        environment.setenv(name, "1")
        check_launched(num_nodes=4, num_devices=1)
        environment.delenv(name)


def test_a_launcher_of_one_process_is_right_without_mpi(environment: pytest.MonkeyPatch):
    environment.setenv("OMPI_COMM_WORLD_SIZE", "1")
    check_launched(num_nodes=1, num_devices=1)


def test_a_node_that_knows_of_no_other(environment: pytest.MonkeyPatch):
    with pytest.raises(ConfigError, match=r"num_nodes 2, and nothing tells where the nodes meet: .*MASTER_ADDR"):
        check_launched(num_nodes=2, num_devices=1)
    environment.setenv("MASTER_ADDR", "train-0")
    check_launched(num_nodes=2, num_devices=1)
