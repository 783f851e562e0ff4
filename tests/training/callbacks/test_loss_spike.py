"""A loss that jumps is warned about and counted."""

import logging
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from framework.core.errors import ConfigError
from framework.testing.models import quiet_trainer
from framework.tracking import metric_names as metrics
from framework.training.callbacks.finite import FiniteGuard
from framework.training.callbacks.loss_spike import LossSpikes, SpikeConfig

STEADY = [1.0, 1.02, 0.98, 1.01, 0.99, 1.0, 1.03, 0.97]


class Given(LightningModule):
    """Its loss is the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return batch + 0 * self.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(run_dir: Path, losses: list[float], *, state: dict | None = None, **options: int) -> LossSpikes:
    guard = FiniteGuard(on_nonfinite="skip")
    spikes = LossSpikes(SpikeConfig(threshold=8.0, window=16), guard)
    if state is not None:
        spikes.load_state_dict(state)
    trainer = quiet_trainer(run_dir, callbacks=[guard, spikes], max_epochs=1, **options)
    trainer.fit(Given(), DataLoader([torch.tensor(loss) for loss in losses], batch_size=None))
    assert trainer.callback_metrics[metrics.LOSS_SPIKES].item() == spikes.spikes
    return spikes


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "spike" in r.getMessage()]


def test_steady_losses_and_sinking_ones_are_no_spikes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert fit(tmp_path, [*STEADY, 0.5, 0.3, 0.31, 0.29, 0.33]).spikes == 0
    assert warnings(caplog) == []


def test_a_jump_is_warned_about_once_and_every_step_of_it_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    spikes = fit(tmp_path, [*STEADY, 5.0, 4.0, 1.0, 3.0, 1.01])
    assert spikes.spikes == 3
    first, second = warnings(caplog)
    assert first.startswith("loss spike at step 8: 5, ")
    assert second.startswith("loss spike at step 11: 3, ")


@pytest.mark.slow
def test_a_level_that_stays_becomes_normal(tmp_path: Path):
    # The median has moved when half of the window is at the new level.
    assert fit(tmp_path, [*STEADY, *[5.0] * 30]).spikes == 8


def test_micro_batches_are_judged_by_their_mean_and_nonfinite_losses_are_left_out(tmp_path: Path):
    pairs = [x for loss in STEADY for x in (loss - 0.9, loss + 0.9)]
    assert fit(tmp_path, pairs, accumulate_grad_batches=2).spikes == 0
    assert fit(tmp_path, [*STEADY, float("nan"), float("inf"), 1.0]).spikes == 0


def test_a_resumed_window_judges_at_once(tmp_path: Path):
    state = fit(tmp_path, STEADY).state_dict()
    assert fit(tmp_path, [5.0]).spikes == 0
    assert fit(tmp_path, [5.0], state=state).spikes == 1


@pytest.mark.parametrize("wrong", [{"threshold": -1.0}, {"window": 3}])
def test_options_that_mean_nothing_are_refused(wrong: dict):
    with pytest.raises(ConfigError, match=r"guards\.spikes"):
        SpikeConfig(**wrong)
