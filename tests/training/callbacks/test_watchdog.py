"""A job that hangs ends, with a code that is not 0 and a report of who hangs."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from framework.core.errors import ConfigError
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.testing.processes.distributed import run_distributed
from framework.testing.processes.forked import Forked
from framework.training.callbacks import watchdog
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.watchdog import EXIT_CODE, Watchdog, WatchdogConfig

SHORT = WatchdogConfig(step_seconds=1.5, startup_seconds=60.0, validation_seconds=60.0, checkpoint_seconds=60.0)
LONG_SECONDS = 2.0


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


class Stops(Callback):
    """Stops a rank's process at a step, as a debugger or a scheduler does."""

    def __init__(self, rank: int, *, killed_later: bool) -> None:
        self.rank, self.killed_later = rank, killed_later

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_rank != self.rank:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "other").write_text(str(os.getpid()))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        if trainer.global_step == 2 and trainer.global_rank == self.rank:
            # The next sign of life tells where it is.
            time.sleep(1.2)
            pid = os.getpid()
            if self.killed_later:
                # torchrun would wait for it: when the other rank, which tells of it, has ended.
                other = Path(trainer.default_root_dir, "other").read_text()
                kill = f"while kill -0 {other}; do sleep 0.1; done; kill -9 {pid}"
                subprocess.Popen(["sh", "-c", kill], stderr=subprocess.DEVNULL, start_new_session=True)
            os.kill(pid, signal.SIGSTOP)


# What the processes of the tests do: in this one a slow machine would end all tests.


def fit(run_dir: str, *callbacks: Callback, config: WatchdogConfig = SHORT, data: Any = None, **options: Any) -> None:
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(4)]
    trainer = quiet_trainer(Path(run_dir), callbacks=[Watchdog(config), *callbacks], max_epochs=1, **options)
    if data is not None:
        trainer.limit_val_batches = 0
        trainer.fit(tiny_module(), DataLoader(data, batch_size=None))
    else:
        trainer.fit(tiny_module(), datamodule=Batches(batches, batches[:2]))


def hang_for_data(run_dir: str) -> None:
    fit(run_dir, data=SlowData())


def hang_at_the_start(run_dir: str) -> None:
    fit(run_dir, Sleeper("on_fit_start", 60, step=0), config=WatchdogConfig(startup_seconds=1.0))


def take_its_time(run_dir: str) -> None:
    slow = [
        Sleeper("on_train_batch_start", LONG_SECONDS, step=0),
        Sleeper("on_train_batch_end", LONG_SECONDS),
        Sleeper("on_validation_batch_start", LONG_SECONDS, step=4),
        Sleeper("on_save_checkpoint", LONG_SECONDS, step=4),
    ]
    fit(run_dir, *slow, Checkpoints(), enable_checkpointing=True, val_check_interval=4)


def stop_one_rank(run_dir: str, rank: int, killed_later: bool) -> None:
    config = WatchdogConfig(step_seconds=3.0)
    fit(run_dir, Stops(rank, killed_later=killed_later), config=config, strategy="ddp", devices=2)


@pytest.mark.slow
def test_a_process_that_hangs_ends_with_its_stage_and_stack_and_a_slow_one_does_not(tmp_path: Path):
    functions = (hang_for_data, hang_at_the_start, take_its_time)
    running = [Forked(each, 1, {"run_dir": str(tmp_path / each.__name__)}, may_fail=True) for each in functions]
    ended = [each.finish(timeout=80) for each in running]
    printed = [each.output for each in ended]
    assert [each.exitcodes for each in ended] == [[EXIT_CODE], [EXIT_CODE], [0]], printed
    assert 'step 2: last finished "callbacks", in "data wait" for' in printed[0]
    assert 'step 0: last finished "nothing", in "start-up" for' in printed[1]
    assert all("time.sleep" in text for text in printed[:2])


@pytest.mark.slow
def test_a_stopped_rank_is_named_and_the_job_ends(tmp_path: Path):
    # Without torchrun the first rank serves the store that the ranks' signs of life go through, and is stopped.
    given = {"run_dir": str(tmp_path / "alone"), "rank": 0, "killed_later": False}
    alone = Forked(stop_one_rank, 2, given, may_fail=True)
    try:
        arguments = {"run_dir": str(tmp_path / "torchrun"), "rank": 1, "killed_later": True}
        run = run_distributed(stop_one_rank, 2, arguments=arguments, may_fail=True, timeout=120)
        assert run.returncode != 0
        assert run.results == {}
        assert "missing: rank 1\n" in run.output
        assert "watchdog: rank 0 is late (limit 3 s)" in run.output
        assert 'rank 1: MISSING, last seen at step 2: last finished "forward", in "backward"' in run.output
        assert 'rank 0: step 2: last finished "' in run.output
        assert f"exitcode  : {EXIT_CODE}" in run.output

        until = time.monotonic() + 60
        while alone.exitcodes()[1] is None and time.monotonic() < until:
            time.sleep(0.05)
        assert alone.exitcodes() == [None, EXIT_CODE]
    finally:
        os.kill(alone.pids[0], signal.SIGKILL)
        printed = alone.finish().output
    assert "missing: rank 0, which serves the store of the process group, does not answer" in printed
    assert "watchdog: rank 1 is late" in printed


def test_times_below_zero_are_refused():
    with pytest.raises(ConfigError, match=r"guards\.watchdog\.step_seconds -1"):
        WatchdogConfig(step_seconds=-1.0)


def test_the_timer_without_python_is_made_anew_for_longer_stages_at_once_and_for_shorter_ones_by_the_guard(
    monkeypatch: pytest.MonkeyPatch,
):
    armed: list[float] = []
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback_later", lambda seconds, **_: armed.append(seconds))
    monkeypatch.setattr(watchdog.threading.Thread, "start", lambda thread: None)
    cancelled = Mock()
    monkeypatch.setattr(watchdog.faulthandler, "cancel_dump_traceback_later", cancelled)
    # 71 s later than the stage's limit.
    watch = watchdog._Watch(watchdog._first_mark(1000.0), "")
    assert armed == [pytest.approx(1071, abs=1)]
    for step in range(50):
        watch.enter("data wait", step, 900.0)
        watch.enter("forward", step, None)
    assert len(armed) == 1
    watch.enter("callbacks", 50, 1800.0)
    assert armed[1:] == [pytest.approx(1871, abs=1)]
    watch.enter("data wait", 51, 900.0)
    assert len(armed) == 2
    watch._arm()
    watch._arm()
    assert armed[2:] == [pytest.approx(971, abs=1)]
    # A stage without a limit is not ended by the timer of the one before it.
    assert cancelled.call_count == 0
    watch.enter("validation", 52, 0.0)
    assert cancelled.call_count == 1
    watch.enter("data wait", 53, 900.0)
    assert armed[3:] == [pytest.approx(971, abs=1)]
    watch.stop()
    watch._arm()
    assert len(armed) == 4


def test_the_guard_does_not_put_the_timer_back_to_a_stage_that_has_just_ended(monkeypatch: pytest.MonkeyPatch):
    armed: list[float] = []
    monkeypatch.setattr(watchdog.faulthandler, "dump_traceback_later", lambda seconds, **_: armed.append(seconds))
    monkeypatch.setattr(watchdog.threading.Thread, "start", lambda thread: None)
    watch = watchdog._Watch(watchdog._first_mark(1000.0), "")

    class Overtaken:
        """A lock that the guard waits for while the main thread enters a longer stage."""

        def __enter__(self) -> None:
            watch._timer = lock
            watch.enter("validation", 1, 1800.0)

        def __exit__(self, *_: object) -> None: ...

    lock, watch._timer = watch._timer, cast(Any, Overtaken())
    watch._arm()
    assert armed[-1] == pytest.approx(1871, abs=1)
    watch.stop()
