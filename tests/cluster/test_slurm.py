"""Runs on a real SLURM by the shipped job file: every kind of interruption ends in the weights of the undisturbed run.

One interruption of each kind; with `--repeats` as many in the life of one run.
"""

import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from framework.report.run_summary import read_run
from framework.training.checkpoint.read import find_checkpoint, read_tensors

from .conftest import ROOT, TRAINING, Slurm, environment, losses, wait_for_step, wait_until

pytestmark = pytest.mark.cluster
RECIPE = ROOT / "recipes/pra/digits.yaml"
Overrides = Callable[..., list[str]]


def weights(run_dir: Path) -> dict[str, Tensor]:
    return read_tensors(find_checkpoint(run_dir), "")


def log_of(run_dir: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in sorted((run_dir / "logs").iterdir()))


@pytest.fixture(scope="module")
def steps(pytestconfig: pytest.Config) -> int:
    """Enough that no run ends before its last interruption."""
    return 120 * pytestconfig.getoption("repeats")


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def options(request: pytest.FixtureRequest, overrides: Overrides, steps: int) -> list[str]:
    return overrides(trainer__max_steps=str(steps), strategy__name=request.param)


@pytest.fixture(scope="module")
def straight(slurm: Slurm, options: list[str], steps: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run."""
    run_dir = tmp_path_factory.mktemp("straight") / "run"
    job = slurm.submit(run_dir, RECIPE, options)
    assert slurm.finish(job) == "COMPLETED", log_of(run_dir)
    assert sorted(losses(run_dir)) == list(range(steps))
    return run_dir


def signal_steps(slurm: Slurm, job: str) -> None:
    slurm("scancel", "--signal=USR1", job)


def signal_all(slurm: Slurm, job: str) -> None:
    slurm("scancel", "--signal=TERM", "--full", job)


def requeue(slurm: Slurm, job: str) -> None:
    slurm("scontrol", "requeue", job)


def preempt(slurm: Slurm, job: str) -> None:
    slurm("sbatch", "--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap", "sleep 3")


def crash_node(slurm: Slurm, job: str) -> None:
    slurm.kill("n2")
    wait_until(lambda: slurm.state(job) != "RUNNING", 60, "the crash to be noticed")
    slurm.script("revive", "n2", name="slurm.sh")


def kill_worker(slurm: Slurm, job: str) -> None:
    slurm.run("n2", "pkill", "-9", "--oldest", "-f", TRAINING)


INTERRUPTIONS = [signal_steps, signal_all, requeue, preempt, crash_node, kill_worker]


def check_equal(run_dir: Path, straight: Path) -> None:
    ours, theirs = weights(run_dir), weights(straight)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs), "final weights"
    assert losses(run_dir) == losses(straight), "every step once, with the same loss"


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    slurm: Slurm,
    straight: Path,
    options: list[str],
    interruption: Callable[[Slurm, str], None],
    tmp_path: Path,
    pytestconfig: pytest.Config,
):
    run_dir, repeats = tmp_path / "run", pytestconfig.getoption("repeats")
    # n1 and n2: the node that crashes is one of them.
    job = slurm.submit(run_dir, RECIPE, options, "--nodelist=n[1-2]")
    for count in range(1, repeats + 1):
        # Beyond the steps that are taken again, and a new checkpoint.
        wait_for_step(run_dir, max(losses(run_dir), default=0) + 25)
        interruption(slurm, job)
        wait_until(partial(has_restarted, slurm, job, count), 200, f"restart {count}")
    assert slurm.finish(job) == "COMPLETED", log_of(run_dir)
    assert slurm.restarts(job) == repeats, log_of(run_dir)
    assert log_of(run_dir).count("back into the queue") <= repeats
    check_equal(run_dir, straight)


def has_restarted(slurm: Slurm, job: str, count: int) -> bool:
    return slurm.restarts(job) >= count


def test_the_time_limit(slurm: Slurm, overrides: Overrides, tmp_path: Path):
    options = ["--time=2", "--signal=B:USR1@20"]
    run_dir = tmp_path / "run"
    # Longer than its limit on any machine.
    job = slurm.submit(run_dir, RECIPE, overrides(trainer__max_steps="1000000"), *options)
    wait_until(lambda: slurm.restarts(job) == 1, 300, "the restart at the time limit")
    first = log_of(run_dir)
    assert first.count("back into the queue") == 1
    # A machine that is too busy to start within the limit has nothing to save.
    assert "with everything saved" in first or "the time limit has come before the run was saved" in first
    wait_until(lambda: "start 1 of job" in log_of(run_dir), 60, "the second start")
    slurm("scancel", job)
    assert slurm.finish(job) == "CANCELLED"


def test_a_run_that_cannot_save_itself_before_its_time_limit(slurm: Slurm, overrides: Overrides, tmp_path: Path):
    """It has not come to hear the signal: SLURM kills all of the job, and what has not been asked for is lost."""
    run_dir, program = tmp_path / "run", tmp_path / "bin/framework"
    program.parent.mkdir()
    places = f'printf "run.dir: %s\\nrun.wandb: disabled\\n" {run_dir}'
    program.write_text(f'#!/bin/sh\n[ "$1" = fit ] || {{ {places}; exit; }}\nexec sleep 1000\n')
    program.chmod(0o755)
    path = f"{program.parent}:{environment()['PATH']}"
    options = ["--time=1", "--signal=B:USR1@20"]
    job = slurm.submit(run_dir, RECIPE, overrides(), *options, PATH=path, MAX_CRASHES="1")
    wait_until(lambda: slurm.restarts(job) == 1, 200, "the restart at the time limit")
    assert "the time limit has come before the run was saved: back into the queue" in log_of(run_dir)
    # Not for ever.
    assert slurm.finish(job) == "TIMEOUT"
    assert slurm.restarts(job) == 1
    assert "2 starts have ended without a checkpoint after no checkpoint: not started again" in log_of(run_dir)


def test_a_signal_during_the_start_up_does_not_end_the_run(
    slurm: Slurm, straight: Path, options: list[str], tmp_path: Path
):
    run_dir = tmp_path / "run"
    job = slurm.submit(run_dir, RECIPE, options)
    wait_until(lambda: f"{job}.0" in slurm("squeue", "-h", "--steps", "-j", job), 60, "the processes")
    assert not losses(run_dir)
    slurm("scancel", "--signal=USR1", job)
    assert slurm.finish(job) == "COMPLETED", log_of(run_dir)
    assert slurm.restarts(job) == 1
    check_equal(run_dir, straight)


def test_a_cancelled_job_stays_cancelled(slurm: Slurm, overrides: Overrides, tmp_path: Path):
    run_dir = tmp_path / "run"
    job = slurm.submit(run_dir, RECIPE, overrides(trainer__max_steps="1000000"))
    wait_for_step(run_dir, 5)
    slurm("scancel", job)
    assert slurm.finish(job) == "CANCELLED"
    assert "with everything saved" in log_of(run_dir)


def test_an_error_is_no_interruption(slurm: Slurm, overrides: Overrides, tmp_path: Path):
    run_dir = tmp_path / "run"
    job = slurm.submit(run_dir, RECIPE, overrides(trainer__max_steps="10", data__train=str(tmp_path / "nothing")))
    assert slurm.finish(job) == "FAILED"
    assert slurm.restarts(job) == 0
    assert "ExitCode=2:0" in slurm("scontrol", "show", "job", job)


@pytest.mark.parametrize(("nodes", "strategy"), [(2, "fsdp2"), (4, "ddp")])
def test_strategies_and_nodes(slurm: Slurm, overrides: Overrides, tmp_path: Path, nodes: int, strategy: str):
    run_dir = tmp_path / "run"
    more = overrides(trainer__max_steps="10", strategy__name=strategy, data__batch_size=str(16 // nodes))
    job = slurm.submit(run_dir, RECIPE, more, nodes=nodes)
    assert slurm.finish(job) == "COMPLETED", log_of(run_dir)
    assert f"Starting with {nodes} processes" in log_of(run_dir)
    assert sorted(losses(run_dir)) == list(range(10))


def test_an_array_makes_a_run_for_each_line(slurm: Slurm, overrides: Overrides, tmp_path: Path):
    lines = tmp_path / "grid.txt"
    lines.write_text("--model.optimizer.learning_rate=0.0001\n--model.optimizer.learning_rate=0.001\n")
    script = ["sbatch", "--parsable", "--array=1-2", "--nodes=1", "--ntasks-per-node=1", f"--output={tmp_path}/%a.out"]
    more = [*overrides(trainer__max_steps="2"), f"--run.dir={tmp_path / 'sweep'}"]
    job = slurm(*script, str(ROOT / "launch/sweep/array.sbatch"), str(lines), str(RECIPE), *more).strip()
    wait_until(lambda: not slurm("squeue", "-h", "-j", job).strip(), 200, "the array")
    for task, rate in ((1, "0.0001"), (2, "0.001")):
        assert f"learning_rate: {rate}" in (tmp_path / f"sweep/{task}/recipe.yaml").read_text(), task


def test_one_task_of_an_array_restarts_and_the_others_do_not(slurm: Slurm, overrides: Overrides, tmp_path: Path):
    lines = tmp_path / "grid.txt"
    lines.write_text("--seed_everything=1\n--seed_everything=2\n--seed_everything=3\n")
    script = ["sbatch", "--parsable", "--array=1-3", "--nodes=1", "--ntasks-per-node=1", f"--output={tmp_path}/%a.out"]
    more = [*overrides(trainer__max_steps="1000000"), f"--run.dir={tmp_path / 'sweep'}"]
    job = slurm(*script, str(ROOT / "launch/sweep/array.sbatch"), str(lines), str(RECIPE), *more).strip()
    try:
        for task in (1, 2, 3):
            wait_for_step(tmp_path / f"sweep/{task}", 5)
        # Each in turn: one of them has the number of the whole array.
        for task in (1, 2, 3):
            slurm("scancel", "--signal=USR1", f"{job}_{task}")
            wait_until(partial(has_restarted, slurm, f"{job}_{task}", 1), 100, f"the restart of task {task}")
            assert [slurm.restarts(f"{job}_{each}") for each in (1, 2, 3)] == [int(each <= task) for each in (1, 2, 3)]
            assert "with everything saved" in (tmp_path / f"{task}.out").read_text()
    finally:
        slurm("scancel", job)
    wait_until(lambda: not slurm("squeue", "-h", "-j", job).strip(), 100, "the end of the array")


def test_paths_with_spaces(slurm: Slurm, overrides: Overrides, tmp_path: Path):
    """The checkout's, and a run's folder that YAML would fold."""
    root, run_dir = tmp_path / "my  checkout", tmp_path / ("a run with a long name " * 5) / "it's"
    shutil.copytree(ROOT / "launch", root / "launch")
    job = slurm.submit(run_dir, RECIPE, overrides(trainer__max_steps="3"), root=root)
    assert slurm.finish(job) == "COMPLETED", log_of(run_dir)
    assert sorted(losses(run_dir)) == [0, 1, 2]


@pytest.mark.parametrize("options", [["--ntasks=1"], ["--ntasks=3", "--nodes=2"]])
def test_fewer_processes_than_were_asked_for(slurm: Slurm, overrides: Overrides, tmp_path: Path, options: list[str]):
    run_dir, log = tmp_path / "run", tmp_path / "log"
    with pytest.raises(AssertionError, match=r"error: --ntasks=1 among the options"):
        slurm.submit(run_dir, RECIPE, overrides(), "--ntasks=1", nodes=1)
    given = [str(RECIPE), *overrides(trainer__max_steps="3"), f"--run.dir={run_dir}"]
    script = ["sbatch", "--parsable", "--nodes=1", "--ntasks-per-node=2", *options, f"--output={log}"]
    job = slurm(*script, str(ROOT / "launch/slurm/train.sbatch"), *given).strip()
    assert (slurm.finish(job), slurm.exit_code(job)) == ("FAILED", "2:0")
    assert "error: --ntasks " in log.read_text()

    # Without the shipped files.
    log.unlink()
    fit = shlex.join(["framework", "fit", "--config", *given, "--trainer.devices=2"])
    for command in (f"srun {fit}", fit):
        wrapped = ["--parsable", "--nodes=1", "--ntasks=1", "--open-mode=append", f"--output={log}", "--wrap"]
        job = slurm("sbatch", *wrapped, command).strip()
        assert (slurm.finish(job), slurm.exit_code(job)) == ("FAILED", "2:0"), log.read_text()
    assert log.read_text().count("SLURM has started 1 process(es)") == 2
    assert not run_dir.exists()


def test_ctrl_c_of_a_job_saves_and_nobody_starts_it_again(slurm: Slurm, overrides: Overrides, tmp_path: Path):
    run_dir = tmp_path / "run"
    job = slurm.submit(run_dir, RECIPE, overrides(trainer__max_steps="1000000"))
    wait_for_step(run_dir, 5)
    slurm("scancel", "--signal=INT", job)
    assert slurm.finish(job) == "FAILED"
    assert (slurm.restarts(job), slurm.exit_code(job)) == (0, "130:0")
    assert "stopped by Ctrl-C" in log_of(run_dir)
    assert read_run(run_dir).state == "interrupted"


def test_wrong_settings_are_refused_before_anything_is_queued(slurm: Slurm, overrides: Overrides, tmp_path: Path):
    for wrong in ("--model.architecture.widht=3", "--trainer.num_nodes=2"):
        with pytest.raises(AssertionError, match=r"error: .*(widht|num_nodes)"):
            slurm.submit(tmp_path / "run", RECIPE, [*overrides(), wrong])
    assert not (tmp_path / "run").exists()
