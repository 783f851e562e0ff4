"""Private parts of Lightning (2.6)."""

# This file is where they may be used.
# pyright: reportPrivateUsage=false

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from jaxtyping import Shaped
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver as ChildProcessObserver
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import LightningModule, Trainer, strategies
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loops.progress import _ProcessedTracker as ProcessedTracker
from torch import Tensor
from torch.distributed.constants import default_pg_timeout

__all__ = [
    "OpenDeepSpeedStrategy",
    "OpenLightningCLI",
    "OpenModelParallelStrategy",
    "ProcessedTracker",
    "as_before_validation",
    "hook_under_way",
    "leave_signals_alone",
    "let_children_end",
    "log_finished_step",
    "log_from_hook",
    "logs_this_step",
    "replaces_samplers",
    "run_before_finished_fit",
    "validate_now",
    "validation_is_due",
]


def leave_signals_alone(trainer: Trainer) -> None:
    """No broadcast of received signals at every batch, which makes it wait for the one before."""
    loop: Any = trainer.fit_loop.epoch_loop
    assert hasattr(loop, "_broadcast_sigterm_tensor")
    loop._broadcast_sigterm_tensor = lambda: None


def let_children_end() -> None:
    """The processes that Lightning has started may end without this one being killed for it."""
    for thread in threading.enumerate():
        if isinstance(thread, ChildProcessObserver):
            thread._child_processes = []


def log_finished_step(trainer: Trainer) -> None:
    """Logs a step within `on_train_batch_end`, as the trainer does after that hook."""
    trainer._logger_connector.on_batch_end()
    trainer._logger_connector.update_train_step_metrics()


def validation_is_due(trainer: Trainer) -> bool:
    """Whether the trainer validates after the batch that its restored counters stand at.

    As the loop decides after a batch, but by the epoch that the batch was of: a restart has counted it as over already.
    """
    progress, every = trainer.fit_loop.epoch_loop.batch_progress, trainer.check_val_every_n_epoch
    if not trainer.enable_validation or trainer.val_check_batch is None:  # None: by the clock
        return False
    if every is not None and trainer.fit_loop.epoch_progress.current.ready % every:
        return False
    if trainer.val_check_batch == float("inf"):
        return progress.is_last_batch
    done = progress.total.ready if every is None else progress.current.ready
    return done > 0 and done % trainer.val_check_batch == 0


def validate_now(trainer: Trainer) -> None:
    """Validates between two batches, as the trainer does after one."""
    loop: Any = trainer.fit_loop.epoch_loop.val_loop
    # All of it, not the rest of a restored one.
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


@contextmanager
def as_before_validation(trainer: Trainer) -> Generator[None, None, None]:
    """Within the validation after a batch: counters as they were at the end of that batch, for a checkpoint.

    A run that goes on from it is one that was cut off before the validation, and makes it from its beginning.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    counts = (progress.total, progress.current)
    for each in counts:
        each.completed -= 1
    try:
        yield
    finally:
        for each in counts:
            each.completed += 1


def run_before_finished_fit(trainer: Trainer, action: Callable[[], None]) -> None:
    """Has something done where a fit has no step left to make, and so would call no hook of training.

    Args:
        trainer: before its `fit` loop runs.
        action: called with the loaders made and all counters restored.
    """
    loop: Any = trainer.fit_loop
    run = loop.run

    def run_after_action() -> None:
        loop.setup_data()
        if loop.skip:
            action()
        else:
            run()

    loop.run = run_after_action


def logs_this_step(trainer: Trainer) -> bool:
    """Whether the loggers get the metrics of the batch that is under way."""
    return trainer._logger_connector.should_update_logs


def hook_under_way(module: LightningModule) -> str | None:
    """The hook or step in which a module or a callback is called now."""
    return module._current_fx_name


def log_from_hook(module: LightningModule, hook: str, values: Mapping[str, Shaped[Tensor, "..."]]) -> None:
    """Logs metrics as if within another hook: those of one name from two hooks are two metrics.

    Args:
        module: that the trainer trains.
        hook: which.
        values: of each metric.
    """
    now = module._current_fx_name
    module._current_fx_name = hook
    try:
        module.log_dict(dict(values))
    finally:
        module._current_fx_name = now


def replaces_samplers(trainer: Trainer) -> bool:
    """Whether the trainer puts a distributed sampler into the loaders."""
    return trainer._accelerator_connector.use_distributed_sampler


class OpenModelParallelStrategy(strategies.ModelParallelStrategy):
    """Lightning's, with settings that may change until the process groups are made."""

    def set_data_parallel_size(self, num_processes: int) -> None:
        """Processes that read different data; `auto` of the constructor means nodes."""
        assert hasattr(self, "_data_parallel_size")
        self._data_parallel_size = num_processes

    def set_default_process_group_backend(self, name: str) -> None:
        """The backend of the process groups where the constructor was given none."""
        self._process_group_backend = self._process_group_backend or name

    @property
    def timeout(self) -> timedelta:
        """Of collectives in the default process group."""
        return self._timeout or default_pg_timeout


class OpenDeepSpeedStrategy(strategies.DeepSpeedStrategy):
    """Lightning's, with steps of its set-up that can be called and added to."""

    def complete_config(self) -> None:
        """Puts batch sizes and precision into `config`, unless they are there."""
        self._init_config_if_needed()

    def on_config_complete(self) -> None:
        """Called once `config` is complete, to change it."""

    def _format_config(self) -> None:
        super()._format_config()
        self.on_config_complete()

    def setup_distributed_anywhere(self) -> None:
        """As `setup_distributed`, which refuses devices other than GPUs."""
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()


class OpenLightningCLI(LightningCLI):
    """Lightning's, with access to a subcommand's settings and parser."""

    def section(self, config: Any, key: str) -> Any:
        """A top-level setting of the subcommand that runs."""
        return self._get(config, key)

    def parser_of(self, subcommand: str) -> LightningArgumentParser:
        """The parser of a subcommand."""
        return self._parser(subcommand)
