"""Lightning's private parts are where we use them, and do what we use them for."""

import subprocess
from pathlib import Path

import pytest
from lightning.pytorch import Trainer, strategies
from lightning.pytorch.cli import LightningCLI

from framework.core.compat.lightning_compat import (
    OpenDeepSpeedStrategy,
    OpenLightningCLI,
    OpenModelParallelStrategy,
    ProcessedTracker,
    leave_signals_alone,
    let_children_end,
    replaces_samplers,
)
from framework.testing.models import quiet_trainer
from tests.core.compat.found import find, moved

_OBSERVER = "lightning.fabric.strategies.launchers.subprocess_script:_ChildProcessObserver"
PRIVATE = {
    "lightning.pytorch.loops.progress:_ProcessedTracker": "count the finished batches",
    "lightning.pytorch.loops:_TrainingEpochLoop._broadcast_sigterm_tensor": "agree on a stop without waiting",
    "lightning.pytorch:Trainer._logger_connector": "log the last step before a preempted run ends",
    "lightning.pytorch:LightningModule._current_fx_name": "log the metrics of a step after it",
    "lightning.pytorch:Trainer._accelerator_connector": "refuse a sampler that would reorder the samples",
    "lightning.pytorch.strategies:ModelParallelStrategy._data_parallel_size": "shard over all processes",
    "lightning.pytorch.strategies:ModelParallelStrategy._process_group_backend": "sum offloaded gradients on the host",
    "lightning.pytorch.strategies:ModelParallelStrategy._timeout": "know the time-out of the default process group",
    "lightning.pytorch.strategies:DeepSpeedStrategy._init_config_if_needed": "complete DeepSpeed's settings early",
    "lightning.pytorch.strategies:DeepSpeedStrategy._format_config": "replace DeepSpeed's mixed precision",
    "lightning.pytorch.strategies:DeepSpeedStrategy._init_deepspeed_distributed": "test DeepSpeed without a GPU",
    f"{_OBSERVER}._child_processes": "end with the code of the process that failed",
    "lightning.pytorch.cli:LightningCLI._get": "read a recipe's sections",
    "lightning.pytorch.cli:LightningCLI._parser": "write the resolved recipe",
}
ON_INSTANCES = {
    "_ChildProcessObserver._child_processes",
    "LightningModule._current_fx_name",
    "Trainer._logger_connector",
    "Trainer._accelerator_connector",
    "ModelParallelStrategy._data_parallel_size",
    "ModelParallelStrategy._process_group_backend",
    "ModelParallelStrategy._timeout",
}


@pytest.mark.parametrize("path", [path for path in PRIVATE if path.partition(":")[2] not in ON_INSTANCES])
def test_it_is_where_we_use_it(path: str):
    find("lightning", path, PRIVATE[path])


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return quiet_trainer(tmp_path, max_steps=1)


def test_children_that_end_with_an_error_take_this_process_with_them_only_until_they_are_let_go():
    child = subprocess.Popen(["false"])
    observer = find("lightning", _OBSERVER, "end with the code of the process that failed")(0, [child], 1)
    killed: list[int] = []
    observer._terminate_all = lambda: killed.append(child.pid)
    child.wait()
    assert observer._run()
    assert killed == [child.pid]
    # One that runs is found.
    observer._child_processes, observer._run = [child], lambda: False
    observer.start()
    let_children_end()
    assert observer._child_processes == []
    assert type(observer)._run(observer)
    assert killed == [child.pid], "not once more"
    observer._run = lambda: True
    observer.join(10)


def test_parts_of_the_trainer(trainer: Trainer):
    for part in ("_logger_connector", "_accelerator_connector"):
        assert hasattr(trainer, part), moved(
            "lightning", f"Trainer.{part}", PRIVATE[f"lightning.pytorch:Trainer.{part}"]
        )
    for method in ("on_batch_end", "update_train_step_metrics"):
        assert hasattr(trainer._logger_connector, method), moved("lightning", method, "log the last step")
    assert not replaces_samplers(trainer)
    assert isinstance(trainer.fit_loop.epoch_loop.batch_progress.total, ProcessedTracker)


def test_signals_are_not_broadcast_at_every_batch(trainer: Trainer):
    leave_signals_alone(trainer)
    assert "_broadcast_sigterm_tensor" in vars(trainer.fit_loop.epoch_loop)


def test_settings_of_model_parallelism():
    strategy = OpenModelParallelStrategy(tensor_parallel_size=1)
    for name in ("_data_parallel_size", "_process_group_backend"):
        path = f"lightning.pytorch.strategies:ModelParallelStrategy.{name}"
        assert hasattr(strategy, name), moved("lightning", path, PRIVATE[path])
    strategy.set_data_parallel_size(3)
    strategy.set_default_process_group_backend("one")
    strategy.set_default_process_group_backend("other")
    assert (strategy._data_parallel_size, strategy.process_group_backend) == (3, "one")


@pytest.mark.parametrize(
    ("ours", "theirs", "method"),
    [
        (OpenDeepSpeedStrategy, strategies.DeepSpeedStrategy, "_format_config"),
    ],
)
def test_what_is_overridden_is_called_by_lightning(ours: type, theirs: type, method: str):
    assert getattr(ours, method) is not getattr(theirs, method)
    callers = [
        name
        for name, function in vars(theirs).items()
        if method in getattr(getattr(function, "__code__", None), "co_names", ())
    ]
    assert callers, f"lightning no longer calls {theirs.__name__}.{method}, which {ours.__name__} overrides"


def test_sections_of_a_recipe():
    for method in ("_get", "_parser"):
        assert callable(getattr(LightningCLI, method))
    assert OpenLightningCLI.section is not None
    assert OpenLightningCLI.parser_of is not None
