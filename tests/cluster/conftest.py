"""Hosts made of namespaces, a real SLURM on them, and a small recipe of digits that trains there."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from framework.tracking.metric_files import read_metrics

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LOSS = "loss/total"
# The command line of a training process, for pkill: not that of the supervisor, which has it as its last words. Loader
# workers have it too, and are younger.
TRAINING = r"^[^ ]*python[^ ]* [^ ]*/framework fit --config"
NEEDED = {"ip": "iproute2", "unshare": "util-linux"}
NEEDED_BY_SLURM = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge"}
# The paper's model in the small; the recipe's own takes seconds a step on two busy cores.
SMALL = {
    "trainer.accelerator": "cpu",
    "trainer.enable_progress_bar": "false",
    "trainer.enable_model_summary": "false",
    "trainer.log_every_n_steps": "1",
    "trainer.val_check_interval": "1000",
    "model.architecture.width": "32",
    "model.architecture.depth": "2",
    "model.architecture.head_width": "32",
    "model.architecture.decoder_width": "32",
    "model.architecture.encoder_width": "32",
    "model.grid.every_n_steps": "0",
    "checkpoint.every_n_steps": "20",
    "data.batch_size": "8",
    "data.global_batch": "16",
    "data.validation": "null",
    "run.wandb": "disabled",
}


def skip_without(needed: dict[str, str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("hosts are made of namespaces, which takes root")
    missing = {package for program, package in needed.items() if shutil.which(program) is None}
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing))} (Debian's names; `make cluster` installs them)")


def environment(**more: str) -> dict[str, str]:
    """This one, with the commands of the environment that runs the tests, and a thread a process."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **more}


@dataclass
class Hosts:
    """Hosts of hosts.sh."""

    folder: Path

    def script(self, *arguments: str, name: str = "hosts.sh") -> None:
        command = [str(HERE / name), str(self.folder), *arguments]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def start(self, host: str, *command: str, log: Path, **more: str) -> subprocess.Popen[bytes]:
        """A command on a host, in the background."""
        with log.open("ab") as stream:
            words = [str(self.folder / "on"), host, *command]
            return subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT, env=environment(**more))

    def run(self, host: str, *command: str, **more: str) -> str:
        done = subprocess.run(
            [str(self.folder / "on"), host, *command],
            env=environment(**more), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def kill(self, host: str) -> None:
        """A crash: everything on the host is gone at once."""
        self.script("kill", host)


@dataclass
class Slurm(Hosts):
    """A SLURM cluster of slurm.sh; the host `login` and nodes n1, n2, ..."""

    def __call__(self, *command: str, **more: str) -> str:
        return self.run("login", *command, **{"SLURM_CONF": str(self.folder / "slurm.conf"), **more})

    def submit(
        self,
        run_dir: Path,
        recipe: Path,
        overrides: list[str],
        *options: str,
        nodes: int = 2,
        root: Path = ROOT,
        **more: str,
    ) -> str:
        """Submits by the shipped script, one process a node; the job's number.

        Args:
            run_dir: of the run.
            recipe: to train by.
            overrides: of its settings.
            *options: of sbatch.
            nodes: how many.
            root: the checkout whose script it is.
            **more: environment variables.
        """
        script = [str(root / "launch/slurm/submit.sh"), "--cpu", "--nodes", str(nodes), "--devices", "1", *options]
        printed = self(*script, "--", str(recipe), *overrides, f"--run.dir={run_dir}", **more)
        found = re.search(r"Submitted batch job (\d+)", printed)
        assert found is not None, printed
        return found[1]

    def state(self, job: str) -> str:
        return re.findall(r"JobState=(\S+)", self("scontrol", "show", "job", job))[0]

    def restarts(self, job: str) -> int:
        return int(re.findall(r"Restarts=(\d+)", self("scontrol", "show", "job", job))[0])

    def exit_code(self, job: str) -> str:
        """Its code and the signal that has ended it."""
        return re.findall(r" ExitCode=(\S+)", self("scontrol", "show", "job", job))[0]

    def finish(self, job: str, timeout: float = 400) -> str:
        """Waits for a job's end; its last state."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        # A job that is being requeued shows such a state for a moment.
        wait_until(lambda: self.state(job) in over and not self("squeue", "-h", "-j", job).strip(), timeout, "its end")
        return self.state(job)


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, f"waited {timeout} s for {what}"
        time.sleep(0.5)


def losses(run_dir: Path) -> dict[int, float]:
    return read_metrics(run_dir).get(LOSS, {})


def wait_for_step(run_dir: Path, step: int, timeout: float = 200) -> None:
    wait_until(lambda: max(losses(run_dir), default=-1) >= step, timeout, f"step {step} of {run_dir}")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards of the digits, and the shipped recipe."""
    skip_without(NEEDED)
    folder = tmp_path_factory.mktemp("digits")
    for arguments in (["digits", "images"], ["images", "images/train", "train"]):
        command = [sys.executable, "-m", "framework.cli.main", "shards", *arguments]
        subprocess.run(command, cwd=folder, check=True, env={**environment(), "PYTHONPATH": _source()})
    return folder


def _source() -> str:
    return os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))


@pytest.fixture(scope="session")
def overrides(digits: Path) -> Callable[..., list[str]]:
    """Overrides of recipes/pra/digits.yaml for a small model and these shards; more by name, with . as __."""

    def make(**more: str) -> list[str]:
        given = {**SMALL, "data.train": str(digits / "train"), **{k.replace("__", "."): v for k, v in more.items()}}
        return [f"--{name}={value}" for name, value in given.items()]

    return make


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    skip_without(NEEDED | NEEDED_BY_SLURM)
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.script("up", "4", "2", name="slurm.sh")
        yield cluster
    finally:
        cluster.script("down")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """Three hosts, a, b and c."""
    skip_without(NEEDED)
    made = Hosts(tmp_path / "hosts")
    try:
        made.script("up", "a", "b", "c")
        yield made
    finally:
        made.script("down")
