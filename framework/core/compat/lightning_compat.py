"""Private parts of Lightning (2.6)."""

# This file is where they may be used.
# pyright: reportPrivateUsage=false

from typing import Any

from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch import Trainer, strategies
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loops.progress import _ProcessedTracker as ProcessedTracker

__all__ = [
    "DescribedProgressBar",
    "OpenDeepSpeedStrategy",
    "OpenLightningCLI",
    "OpenModelParallelStrategy",
    "ProcessedTracker",
    "leave_signals_alone",
    "log_finished_step",
    "logs_this_step",
    "replaces_samplers",
]


def leave_signals_alone(trainer: Trainer) -> None:
    """No broadcast of received signals at every batch, which makes it wait for the one before."""
    loop: Any = trainer.fit_loop.epoch_loop
    assert hasattr(loop, "_broadcast_sigterm_tensor")
    loop._broadcast_sigterm_tensor = lambda: None


def log_finished_step(trainer: Trainer) -> None:
    """Logs a step within `on_train_batch_end`, as the trainer does after that hook."""
    trainer._logger_connector.on_batch_end()
    trainer._logger_connector.update_train_step_metrics()


def logs_this_step(trainer: Trainer) -> bool:
    """Whether the loggers get the metrics of the batch that is under way."""
    return trainer._logger_connector.should_update_logs


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


class DescribedProgressBar(RichProgressBar):
    """Rich's bar, with words of one's own before it."""

    def describe_epoch(self, epoch: int) -> str:
        """What stands before the bar of an epoch, which is counted from 0."""
        return super()._get_train_description(epoch)

    def _get_train_description(self, current_epoch: int) -> str:
        return self.describe_epoch(current_epoch)


class OpenLightningCLI(LightningCLI):
    """Lightning's, with access to a subcommand's settings and parser."""

    def section(self, config: Any, key: str) -> Any:
        """A top-level setting of the subcommand that runs."""
        return self._get(config, key)

    def parser_of(self, subcommand: str) -> LightningArgumentParser:
        """The parser of a subcommand."""
        return self._parser(subcommand)
