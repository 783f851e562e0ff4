"""One recipe section makes the guards, and they keep checkpoints good."""

from dataclasses import replace
from pathlib import Path

import pytest

from framework.cli.main import main
from framework.core.errors import TrainingError
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.finite import FiniteGuard
from framework.training.callbacks.guards import GuardConfig, make_guards
from framework.training.callbacks.loss_spike import LossSpikes, SpikeConfig
from framework.training.callbacks.preemption import Preemption
from framework.training.callbacks.watchdog import Watchdog, WatchdogConfig
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, step_of
from framework.training.checkpoint.read import find_checkpoint, read_tensors


def test_a_config_makes_its_guards():
    config = GuardConfig(on_nonfinite="skip", max_skips=3, spikes=SpikeConfig(window=8))
    watchdog, finite, spikes, preemption = make_guards(config)
    assert isinstance(watchdog, Watchdog)
    assert isinstance(finite, FiniteGuard)
    assert (finite.on_nonfinite, finite.max_skips) == ("skip", 3)
    assert isinstance(spikes, LossSpikes)
    assert spikes.config.window == 8
    assert spikes.readings is finite
    assert isinstance(preemption, Preemption)


def test_without_limits_there_is_no_watchdog():
    none = WatchdogConfig(step_seconds=0.0, startup_seconds=0.0, validation_seconds=0.0, checkpoint_seconds=0.0)
    assert not any(isinstance(guard, Watchdog) for guard in make_guards(GuardConfig(watchdog=none)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--guards.max_skips=0", "guards.max_skips 0"),
        ("--guards.on_nonfinite=ignore", "ignore"),
        ("--guards.watchdog.step_seconds=-1", "guards.watchdog.step_seconds -1"),
        ("--guards.spikes.window=2", "guards.spikes.window 2"),
        ("--guards.wachdog=1", "wachdog"),
    ],
)
def test_wrong_options_are_one_line(recipe: Path, capsys: pytest.CaptureFixture[str], option: str, words: str):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(recipe), option])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_the_last_good_checkpoint_stays_the_newest(tmp_path: Path):
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(4)]
    images = batches[3].images.clone()
    images[1, 0, 2, 2] = float("nan")
    batches[3] = replace(batches[3], images=images)
    module = tiny_module()
    callbacks = [*make_guards(GuardConfig()), Checkpoints(every_n_steps=1)]
    trainer = quiet_trainer(tmp_path, callbacks=callbacks, enable_checkpointing=True, max_epochs=1)
    with pytest.raises(TrainingError, match="the loss is nan at step 3"):
        trainer.fit(module, datamodule=Batches(batches))
    assert step_of(list_checkpoints(tmp_path / FOLDER)[-1]) == 3
    saved = read_tensors(find_checkpoint(tmp_path), "")
    assert all(tensor.isfinite().all() for tensor in saved.values())
    for name, value in module.state_dict().items():
        assert value.equal(saved[name]), name
