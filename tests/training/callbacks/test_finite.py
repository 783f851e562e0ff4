"""A run stops before anything that is not a number reaches the weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from framework.errors import TrainingError
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.tracking import metrics
from framework.training.callbacks.finite import FiniteGuard
from framework.training.checkpoint import Checkpoints, read_checkpoint, step_of


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_loss_stops_the_run_with_weights_and_checkpoint_unharmed(tmp_path: Path, bad: float):
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(4)]
    images = batches[3].images.clone()
    images[1, 0, 2, 2] = bad
    batches[3] = replace(batches[3], images=images)
    module = tiny_module()
    trainer = quiet_trainer(
        tmp_path, callbacks=[FiniteGuard(), Checkpoints(every_n_steps=1)], enable_checkpointing=True, max_epochs=1
    )
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at step 3: the last checkpoint is unharmed"
    ) as error:
        trainer.fit(module, datamodule=Batches(batches))
    assert error.value.exit_code == 1
    newest = max((tmp_path / "checkpoints").glob("*.ckpt"))
    assert step_of(newest) == 3
    saved = read_checkpoint(newest)["state_dict"]
    assert all(value.isfinite().all() for value in saved.values())
    for name, value in module.state_dict().items():
        assert torch.equal(value, saved[name]), name


class Line(LightningModule):
    """Loss `sum(sqrt(weight) * batch)`: zero, with an infinite gradient, at a weight of zero."""

    def __init__(self, weight: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.weight.sqrt() * batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_an_infinite_gradient_of_a_finite_loss_stops_the_run(tmp_path: Path):
    line = Line([1.0, 0.0])
    trainer = quiet_trainer(tmp_path, callbacks=[FiniteGuard()], gradient_clip_val=1.0, max_epochs=1)
    with pytest.raises(TrainingError, match="the gradient norm is inf at step 0"):
        trainer.fit(line, DataLoader([torch.ones(2)], batch_size=None))
    assert line.weight.tolist() == [1, 0]


def test_the_gradient_norm_is_logged_before_clipping(tmp_path: Path):
    # The gradient of sqrt(w) b is b / 2 at w = 1: (3, 4), of norm 5.
    line = Line([1.0, 1.0])
    trainer = quiet_trainer(tmp_path, callbacks=[FiniteGuard()], gradient_clip_val=0.5, max_epochs=1)
    trainer.fit(line, DataLoader([torch.tensor([6.0, 8.0])], batch_size=None))
    assert trainer.callback_metrics[metrics.GRADIENT_NORM].item() == pytest.approx(5)
    # Clipped to (0.3, 0.4), times the learning rate.
    assert line.weight.tolist() == pytest.approx([0.97, 0.96], abs=1e-5)


def test_a_bad_micro_batch_stops_the_run_before_its_step(tmp_path: Path):
    line = Line([1.0, 1.0])
    trainer = quiet_trainer(tmp_path, callbacks=[FiniteGuard()], accumulate_grad_batches=2, max_epochs=1)
    with pytest.raises(TrainingError, match="is nan at step 1"):
        trainer.fit(
            line,
            DataLoader([torch.ones(2), torch.ones(2), torch.full((2,), torch.nan), torch.ones(2)], batch_size=None),
        )
    assert line.weight.tolist() == pytest.approx([0.95, 0.95])
