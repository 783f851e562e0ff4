"""SIGTERM and SIGUSR1 end a run with a checkpoint and a code that asks to be started again."""

import ctypes
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.core.errors import Interrupted, Preempted
from framework.report.run_summary import read_run
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.testing.processes.forked import Forked, run_forked, start_command
from framework.tracking.metric_files import read_metrics
from framework.tracking.run_folder import PREEMPTED
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.preemption import Preemption
from framework.training.callbacks.restarts import Restarts
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, step_of
from framework.training.checkpoint.read import find_checkpoint, read_tensors

STEPS = 8


class Signals(Callback):
    """Sends this process a signal in the middle of a batch, and another one while the checkpoint is being written."""

    def __init__(self, number: int, batch: int = 2, rank: int = 0) -> None:
        self.number, self.batch, self.rank = number, batch, rank

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def fit(run_dir: Path, *callbacks: Callback, **options: Any) -> Trainer:
    """Train to the end or to a signal."""
    given = [Preemption(), *callbacks, Checkpoints(every_n_steps=100)]
    trainer = quiet_trainer(run_dir, callbacks=given, enable_checkpointing=True, max_steps=STEPS, **options)
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(2 * STEPS)]
    trainer.fit(tiny_module(), datamodule=Batches(batches))
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_with_code_75(tmp_path: Path, number: signal.Signals):
    before = signal.getsignal(number)
    with pytest.raises(Preempted, match=f"stopped by {number.name} at step 3, with everything saved") as error:
        fit(tmp_path, Signals(number))
    assert error.value.exit_code == 75
    assert signal.getsignal(number) == before
    assert [step_of(path) for path in list_checkpoints(tmp_path / FOLDER)] == [3]
    assert json.loads((tmp_path / PREEMPTED).read_text()) == {"step": 3, "signal": number.name}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR2])
def test_ctrl_c_saves_and_ends_with_code_130(tmp_path: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped by Ctrl-C at step 3, with everything saved") as error:
        fit(tmp_path, Signals(number), Restarts())
    assert error.value.exit_code == 130
    assert signal.getsignal(number) == before
    assert [step_of(path) for path in list_checkpoints(tmp_path / FOLDER)] == [3]
    # Nobody but the user starts it again.
    assert not (tmp_path / PREEMPTED).exists()
    assert (read_run(tmp_path).state, read_run(tmp_path).step) == ("interrupted", 3)
    # The launchers, which pass the other one on, say it themselves.
    assert ("Once more: it stops at once" in capfd.readouterr().err) == (number == signal.SIGINT)


@pytest.mark.slow
def test_where_sigint_is_ignored_it_stays_so(tmp_path: Path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert fit(tmp_path, Signals(signal.SIGINT)).global_step == STEPS
    finally:
        signal.signal(signal.SIGINT, before)


class Stuck(Callback):
    """Does not come back from a step."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        if trainer.global_step == 2:
            Path(trainer.default_root_dir, "stuck").touch()
            # Signals' handlers wait for it, as for a collective, which does not return for a signal.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            ctypes.CDLL(None).sleep(60)


def fit_until_stuck(run_dir: str) -> None:
    fit(Path(run_dir), Restarts(), Stuck())


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_whatever_the_process_does(tmp_path: Path):
    job = Forked(fit_until_stuck, 1, {"run_dir": str(tmp_path)}, may_fail=True)
    until = time.monotonic() + 60
    while not (tmp_path / "stuck").exists() and time.monotonic() < until:
        time.sleep(0.01)
    for _ in range(2):
        assert job.exitcodes() == [None]
        os.kill(job.pids[0], signal.SIGINT)
        time.sleep(0.3)
    ended = job.finish(timeout=10)
    assert ended.exitcodes == [130]
    assert ended.output.index("Once more: it stops at once") < ended.output.index("Ctrl-C again: stopped at once")
    assert (read_run(tmp_path).state, list_checkpoints(tmp_path / FOLDER)) == ("interrupted", [])


@pytest.mark.slow
def test_an_accumulation_is_completed_first(tmp_path: Path):
    with pytest.raises(Preempted, match="at step 2"):
        fit(tmp_path, Signals(signal.SIGTERM), accumulate_grad_batches=2)


@pytest.mark.slow
def test_a_signal_in_the_last_step_is_too_late_to_matter(tmp_path: Path):
    trainer = fit(tmp_path, Signals(signal.SIGTERM, batch=STEPS - 1))
    assert trainer.global_step == STEPS
    assert not (tmp_path / PREEMPTED).exists()


@pytest.mark.slow
def test_a_preempted_command_goes_on_to_the_same_weights(recipe: Path, tmp_path: Path):
    options = ["--config", str(recipe), "--trainer.max_steps", "120", "--trainer.val_check_interval", "120"]
    options += ["--model.init_args.grid.every_n_steps", "0", "--checkpoint.every_n_steps", "1000"]
    start_command("fit", *options, "--run.dir", str(tmp_path / "straight")).finish(timeout=120)
    run = tmp_path / "run"
    command = start_command("fit", *options)
    until = time.monotonic() + 60
    while not list(run.glob("metrics/*/metrics.csv")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(command.pids[0], signal.SIGTERM)
    ended = command.finish(timeout=60)
    assert ended.exitcodes == [75], ended.output
    assert "stopped by SIGTERM at step" in ended.output
    assert "start the same command again" in ended.output
    [stopped] = list_checkpoints(run / FOLDER)
    assert 0 < step_of(stopped) < 120
    assert json.loads((run / PREEMPTED).read_text())["step"] == step_of(stopped)
    assert start_command("fit", *options).finish(timeout=120).exitcodes == [0]
    assert sorted(read_metrics(run)["loss/total"]) == list(range(120))
    # A run that goes on removes the launcher's mark.
    assert not (run / PREEMPTED).exists()
    straight, resumed = (read_tensors(find_checkpoint(tmp_path / name), "") for name in ("straight", "run"))
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.slow
def test_ctrl_c_at_a_terminal_reaches_the_loaders_workers_too(recipe: Path, tmp_path: Path):
    options = ["--config", str(recipe), "--trainer.max_steps", "100000", "--trainer.val_check_interval", "100000"]
    options += ["--model.init_args.grid.every_n_steps", "0", "--data.loading.num_workers", "1"]
    command, run = start_command("fit", *options), tmp_path / "run"
    until = time.monotonic() + 60
    while not list(run.glob("metrics/*/metrics.csv")) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(command.pids[0], signal.SIGINT)
    ended = command.finish(timeout=60)
    assert ended.exitcodes == [130], ended.output
    assert "Traceback" not in ended.output
    assert "\nstopped by Ctrl-C at step " in ended.output
    assert read_run(run).state == "interrupted"
    assert read_run(run).step in read_run(run).checkpoints


def preempt(run_dir: str) -> dict[str, Any]:
    """One rank alone gets a signal, once of each kind."""
    found = {}
    for number, rank in ((signal.SIGTERM, 1), (signal.SIGUSR1, 0), (signal.SIGINT, 1)):
        folder = Path(run_dir) / number.name
        problem = ""
        try:
            fit(folder, Signals(number, rank=rank), devices=2)
        except (Preempted, Interrupted) as error:
            problem = error.problem
        found[number.name] = problem
    return found


@pytest.mark.slow
def test_ranks_stop_together_when_one_gets_a_signal(tmp_path: Path):
    results = run_forked(preempt, 2, run_dir=str(tmp_path)).results
    saved = "with everything saved"
    # In the third batch the signal, in the fourth the agreement is looked at.
    other = "stopped by a signal to another rank at step 4"
    asked = {"SIGINT": f"stopped by Ctrl-C at step 4, {saved}"}
    assert results[0] == {"SIGTERM": f"{other}, {saved}", "SIGUSR1": f"stopped by SIGUSR1 at step 4, {saved}", **asked}
    assert results[1] == {"SIGTERM": f"stopped by SIGTERM at step 4, {saved}", "SIGUSR1": f"{other}, {saved}", **asked}
    assert not (tmp_path / "SIGINT" / PREEMPTED).exists()
    for name in ("SIGTERM", "SIGUSR1"):
        assert [step_of(path) for path in list_checkpoints(tmp_path / name / FOLDER)] == [4]
        assert json.loads((tmp_path / name / PREEMPTED).read_text())["step"] == 4


class Announces(Callback):
    """A file for each rank once signals are heard."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(trainer.default_root_dir, f"listening-{trainer.global_rank}").touch()


def train_until_stopped(root: str, deliveries: int) -> list[int]:
    """One run after another without an end; the step at which each was stopped."""
    steps = []
    for number in range(deliveries):
        # Preemption comes last, whatever is said here.
        callbacks = [Preemption(), Announces(), Checkpoints(every_n_steps=1000)]
        trainer = quiet_trainer(Path(root, str(number)), callbacks=callbacks, enable_checkpointing=True, devices=2)
        try:
            trainer.fit(tiny_module(), datamodule=Batches([tiny_batch(tiny_config(), 2, seed=n) for n in range(4)]))
        except Preempted:
            steps.append(trainer.global_step)
    return steps


@pytest.mark.slow
def test_no_delivery_of_a_signal_hangs_wherever_the_ranks_are(tmp_path: Path, pytestconfig: pytest.Config):
    """Both ranks get the signal, as SLURM sends it, a random moment apart; `--repeats 20` makes it a hundred times."""
    deliveries, generator = 5 * pytestconfig.getoption("repeats"), random.Random(0)
    job = Forked(train_until_stopped, 2, {"root": str(tmp_path), "deliveries": deliveries})
    for number in range(deliveries):
        until = time.monotonic() + 60
        while len(list((tmp_path / str(number)).glob("listening-*"))) < 2:
            assert time.monotonic() < until, f"delivery {number}: {job.exitcodes()}"
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.5))
        for pid in generator.sample(job.pids, 2):
            os.kill(pid, generator.choice([signal.SIGTERM, signal.SIGUSR1]))
            time.sleep(generator.uniform(0, 0.05))
    stopped = job.finish().results
    assert len(stopped[0]) == deliveries
    assert stopped[0] == stopped[1]
    for number, step in enumerate(stopped[0]):
        assert [step_of(path) for path in list_checkpoints(tmp_path / str(number) / FOLDER)] == [step]
