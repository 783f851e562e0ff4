"""A job that hangs ends, with a code that is not 0 and a report of who hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from framework.errors import ConfigError
from framework.testing.distributed import run_distributed
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.training.callbacks.watchdog import EXIT_CODE, Watchdog, WatchdogConfig

SHORT = WatchdogConfig(step_seconds=1.0, startup_seconds=60, validation_seconds=20, checkpoint_seconds=20)


class Sleeper(Callback):
    """Takes its time in a hook, at a step."""

    def __init__(self, hook: str, seconds: float, step: int = 2) -> None:
        def sleep(trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == step:
                time.sleep(seconds)

        setattr(self, hook, sleep)


class SlowData(Dataset):
    """The third batch takes long."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            time.sleep(60)
        return tiny_batch(tiny_config(), 2, seed=index)


def fit(run_dir: str, *callbacks: Callback, config: WatchdogConfig = SHORT, data: Any = None, **options: Any) -> None:
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(4)]
    trainer = quiet_trainer(Path(run_dir), callbacks=[Watchdog(config), *callbacks], max_epochs=1, **options)
    if data is not None:
        trainer.limit_val_batches = 0
        trainer.fit(tiny_module(), DataLoader(data, batch_size=None))
    else:
        trainer.fit(tiny_module(), datamodule=Batches(batches, batches[:2]))


def hang(case: str, run_dir: str) -> None:
    """In a process of its own: a run that hangs."""
    if case == "data":
        fit(run_dir, data=SlowData())
    else:
        fit(run_dir, Sleeper("on_fit_start", 60, step=0), config=WatchdogConfig(startup_seconds=1.0))


def test_a_process_that_hangs_ends_with_its_stage_and_stack(tmp_path: Path):
    cases = {
        "data": 'step 2: last finished "callbacks", in "data wait" for',
        "start": 'step 0: last finished "nothing", in "start-up" for',
    }
    running = {}
    for case in cases:
        command = f"import importlib.util as u; s = u.spec_from_file_location('t', {__file__!r}); "
        command += f"m = u.module_from_spec(s); s.loader.exec_module(m); m.hang({case!r}, {str(tmp_path)!r})"
        running[case] = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.PIPE, text=True)
    for case, words in cases.items():
        _, printed = running[case].communicate(timeout=55)
        assert running[case].returncode == EXIT_CODE, printed
        assert words in printed
        assert "time.sleep" in printed


def test_start_up_validation_grids_and_checkpoints_have_their_own_time(tmp_path: Path):
    seconds = 1.5
    slow = [
        Sleeper("on_fit_start", seconds, step=0),
        Sleeper("on_train_batch_start", seconds, step=0),
        Sleeper("on_train_batch_end", seconds),
        Sleeper("on_validation_batch_start", seconds, step=4),
        Sleeper("on_save_checkpoint", seconds, step=4),
    ]
    trainer_options = {"val_check_interval": 4}
    fit(str(tmp_path), *slow, Saver(), **trainer_options)


class Saver(Callback):
    """Saves at the end."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "end.ckpt")


def test_times_below_zero_are_refused():
    with pytest.raises(ConfigError, match=r"guards\.watchdog\.step_seconds -1"):
        WatchdogConfig(step_seconds=-1)


class Stops(Callback):
    """Stops this process at a step, as a debugger or a scheduler does; it is killed later, from outside."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        if trainer.global_step == 2 and trainer.global_rank == 1:
            # The next sign of life tells where it is.
            time.sleep(1.2)
            pid = os.getpid()
            subprocess.Popen(["sh", "-c", f"sleep 9; kill -9 {pid}"], start_new_session=True)
            os.kill(pid, signal.SIGSTOP)


def stop_one_rank(run_dir: str) -> None:
    fit(run_dir, Stops(), config=WatchdogConfig(step_seconds=3), strategy="ddp", devices=2)


def test_a_stopped_rank_is_named_and_the_job_ends(tmp_path: Path):
    run = run_distributed(stop_one_rank, 2, arguments={"run_dir": str(tmp_path)}, may_fail=True, timeout=120)
    assert run.returncode != 0
    assert run.results == {}
    assert "missing: rank 1\n" in run.output
    assert "watchdog: rank 0 is late (limit 3 s)" in run.output
    assert 'rank 1: MISSING, last seen at step 2: last finished "forward", in "backward"' in run.output
    assert 'rank 0: step 2: last finished "' in run.output
    assert f"exitcode  : {EXIT_CODE}" in run.output
