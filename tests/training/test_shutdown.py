"""A process of a distributed run ends with its own exit code."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.cli.main import main
from framework.core.errors import DataError
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.testing.processes.distributed import run_distributed
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.watchdog import Watchdog, WatchdogConfig
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig


def leave_work_behind() -> None:
    """Ends while threads of the process group still hold tensors that nobody else does."""
    make_strategy(StrategyConfig(), accelerator="cpu", devices=2)
    dist.init_process_group("gloo")
    for _ in range(8):
        dist.all_reduce(torch.ones(300_000), async_op=True)


@pytest.mark.slow
def test_collectives_that_end_late_do_not_abort_the_process():
    assert run_distributed(leave_work_behind, 2).returncode == 0


class FailsOnRank1(Callback):
    """An error on one rank, while the other waits for it elsewhere than in a collective that would notice."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            if trainer.global_rank == 1:
                raise self.error
            time.sleep(60)


def train(run_dir: str, error: Exception) -> None:
    callbacks = [Watchdog(WatchdogConfig()), FailsOnRank1(error), Checkpoints(every_n_steps=2)]
    trainer = quiet_trainer(Path(run_dir), callbacks=callbacks, enable_checkpointing=True, devices=2)
    trainer.fit(tiny_module(), datamodule=Batches([tiny_batch(tiny_config(), 2, seed=n) for n in range(4)]))


def fail_on_one_rank(run_dir: str, of_the_user: bool) -> None:
    """As the command does, to the end of the interpreter."""
    error = DataError("planted", hint="none") if of_the_user else RuntimeError("planted")
    cli = sys.modules["framework.cli.main"]
    cli._run = lambda command, options: train(run_dir, error)  # type: ignore[attr-defined]
    # An end that waits for the others, as NCCL's does.
    dist.destroy_process_group = lambda group=None: time.sleep(60)
    main(["fit"])


@pytest.mark.slow
@pytest.mark.parametrize(("of_the_user", "code"), [(True, 2), (False, 1)])
def test_an_error_on_one_rank_ends_it_at_once_with_its_own_code(tmp_path: Path, of_the_user: bool, code: int):
    arguments = {"run_dir": str(tmp_path / "run"), "of_the_user": of_the_user}
    began = time.monotonic()
    run = run_distributed(fail_on_one_rank, 2, arguments=arguments, may_fail=True)
    assert f"exitcode  : {code} (pid" in run.output, run.output
    assert "rank      : 1 (local_rank: 1)" in run.output
    assert "planted" in run.output
    assert time.monotonic() - began < 45
