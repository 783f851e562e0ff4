"""Threads: how many and how they wait, as the processes that count see it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from framework.core.errors import ConfigError
from framework.core.process.threads import (
    BLOCK_MILLISECONDS,
    MOST_A_CORE,
    SPIN_COUNT,
    num_cores,
    prepare_threads,
    refuse_too_many,
)

WAITING = {"GOMP_SPINCOUNT": str(SPIN_COUNT), "KMP_BLOCKTIME": str(BLOCK_MILLISECONDS)}
VISIBLE = len(os.sched_getaffinity(0))


def prepared(cgroup: Path, **environment: str) -> dict[str, str]:
    prepare_threads(environment, cgroup=cgroup)
    return environment


def quota(folder: Path, text: str) -> Path:
    (folder / "cpu.max").write_text(text)
    return folder


def test_threads_wait_for_a_bounded_time(tmp_path: Path):
    assert prepared(tmp_path) == WAITING


@pytest.mark.parametrize(
    "given",
    [{"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "3"}, {"OMP_WAIT_POLICY": "active"}, {**WAITING, "OMP_NUM_THREADS": "5"}],
)
def test_what_is_set_stays(tmp_path: Path, given: dict[str, str]):
    assert prepared(tmp_path, **given) == given


def test_one_of_the_two_runtimes_may_be_set_alone(tmp_path: Path):
    assert prepared(tmp_path, GOMP_SPINCOUNT="7") == {**WAITING, "GOMP_SPINCOUNT": "7"}


@pytest.mark.parametrize("text", ["max 100000", "", "100 not-a-number", f"{100_000 * (VISIBLE + 3)} 100000"])
def test_without_a_smaller_share_the_number_is_the_runtimes_own(tmp_path: Path, text: str):
    assert "OMP_NUM_THREADS" not in prepared(quota(tmp_path, text))


def test_a_containers_share_of_the_processors(tmp_path: Path):
    # Half a processor is one thread.
    assert prepared(quota(tmp_path, "50000 100000"))["OMP_NUM_THREADS"] == "1"
    old = tmp_path / "old"
    (old / "cpu").mkdir(parents=True)
    for name, value in (("quota", 100_000), ("period", 100_000)):
        (old / "cpu" / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert prepared(old).get("OMP_NUM_THREADS", str(VISIBLE)) == "1"
    (old / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert "OMP_NUM_THREADS" not in prepared(old)


@pytest.mark.parametrize("name", ["LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "LOCAL_SIZE"])
def test_processes_of_a_node_share_its_processors(tmp_path: Path, name: str):
    assert prepared(tmp_path, **{name: "1"}) == {name: "1", **WAITING}
    assert prepared(tmp_path, **{name: str(VISIBLE)})["OMP_NUM_THREADS"] == "1"
    assert prepared(tmp_path, **{name: str(10 * VISIBLE)})["OMP_NUM_THREADS"] == "1"


def test_a_task_of_slurm_has_processors_of_its_own(tmp_path: Path):
    given = {"SLURM_NTASKS_PER_NODE": str(4 * VISIBLE), "SLURM_CPUS_PER_TASK": str(VISIBLE)}
    assert prepared(tmp_path, **given) == {**given, **WAITING}


@pytest.mark.parametrize("name", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"])
def test_ranks_within_a_task_of_slurm_share_its_processors(tmp_path: Path, name: str):
    """`srun --cpus-per-task=N torchrun --nproc-per-node N`: one task, whose N processes have a processor each."""
    given = {name: str(VISIBLE), "SLURM_CPUS_PER_TASK": str(VISIBLE)}
    for tasks in ({}, {"SLURM_NTASKS_PER_NODE": "1"}):
        assert prepared(tmp_path, **given, **tasks)["OMP_NUM_THREADS"] == "1"
    # A wrapper that tells each task of SLURM how many there are.
    given["SLURM_NTASKS_PER_NODE"] = str(VISIBLE)
    assert prepared(tmp_path, **given) == {**given, **WAITING}


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["framework.cli.main", "framework.data.loading.datasets", "framework.testing.models"]
)
def test_it_is_set_before_torch_is_loaded(module: str):
    watch = (
        "import sys, os\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': print(os.environ.get('GOMP_SPINCOUNT'), flush=True); os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {module}\n"
        "print('torch is not loaded', os.environ.get('GOMP_SPINCOUNT'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split()[-1] == str(SPIN_COUNT)


def test_more_processes_than_would_do_any_good():
    refuse_too_many(MOST_A_CORE * num_cores(), "workers")
    with pytest.raises(ConfigError, match=r"data.loading.num_workers is \d+, on \d+ CPU cores: give at most"):
        refuse_too_many(MOST_A_CORE * num_cores() + 1, "data.loading.num_workers")
