"""A run stops, or skips the step, before anything that is not a number reaches the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader

from framework.core.errors import ConfigError, TrainingError
from framework.testing.models import quiet_trainer
from framework.testing.processes.forked import run_forked
from framework.tracking import metric_names as metrics
from framework.training.callbacks.finite import FiniteGuard

NAN = float("nan")


class Root(torch.nn.Module):
    """Square roots of the weights, times the input."""

    def __init__(self, weight: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.sqrt() * x


class Line(LightningModule):
    """Loss `sum(sqrt(weight) * batch)`: zero, with an infinite gradient, at a weight of zero."""

    def __init__(self, weight: list[float], optimizer: type[torch.optim.Optimizer] = torch.optim.SGD) -> None:
        super().__init__()
        self.root = Root(weight)
        self.optimizer = optimizer

    @property
    def weight(self) -> Tensor:
        return self.root.weight

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.root(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters(), lr=0.1)


class ConstantLoss(Line):
    """Adds a constant, whose gradient is zero, to the loss."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return super().training_step(batch[:2], batch_idx) + batch[2]


class Seen(Callback):
    """Notes a metric after every batch."""

    def __init__(self, metric: str) -> None:
        self.metric, self.values = metric, []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.values.append(trainer.callback_metrics[self.metric].item())


def loader(*batches: list[float]) -> DataLoader:
    return DataLoader([torch.tensor(batch) for batch in batches], batch_size=None)


def fit(run_dir: Path, line: Line, batches: DataLoader, *callbacks: Callback, **options: Any) -> Trainer:
    trainer = quiet_trainer(run_dir, callbacks=list(callbacks), max_epochs=1, **options)
    trainer.fit(line, batches)
    return trainer


@pytest.mark.parametrize("bad", [NAN, float("inf")])
def test_a_bad_loss_stops_the_run_with_the_weights_unharmed(tmp_path: Path, bad: float):
    line = Line([1.0, 1.0])
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at step 1: the last checkpoint is unharmed"
    ) as error:
        fit(tmp_path, line, loader([1, 1], [bad, 1]), FiniteGuard())
    assert error.value.exit_code == 1
    assert line.weight.tolist() == pytest.approx([0.95, 0.95])


def test_a_bad_loss_with_a_good_gradient_stops_the_run(tmp_path: Path):
    with pytest.raises(TrainingError, match="the loss is inf at step 0"):
        fit(tmp_path, ConstantLoss([1.0, 1.0]), loader([1, 1, float("inf")]), FiniteGuard())


def test_an_infinite_gradient_of_a_finite_loss_stops_the_run(tmp_path: Path):
    line = Line([1.0, 0.0])
    with pytest.raises(TrainingError, match="the gradient norm is inf at step 0"):
        fit(tmp_path, line, loader([1, 1]), FiniteGuard(), gradient_clip_val=1.0)
    assert line.weight.tolist() == [1, 0]


def test_the_gradient_norm_is_logged_before_clipping(tmp_path: Path):
    # The gradient of sqrt(w) b is b / 2 at w = 1: (3, 4), of norm 5.
    line = Line([1.0, 1.0])
    trainer = fit(tmp_path, line, loader([6, 8]), FiniteGuard(), gradient_clip_val=0.5)
    assert trainer.callback_metrics[metrics.GRADIENT_NORM].item() == pytest.approx(5)
    # Clipped to (0.3, 0.4), times the learning rate.
    assert line.weight.tolist() == pytest.approx([0.97, 0.96], abs=1e-5)


class Thaws(Callback):
    """Trains a parameter from the second step on, as fine-tuning does."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        for parameter in pl_module.parameters():
            parameter.requires_grad_(trainer.global_step > 0 or parameter.ndim == 0)


class Shifted(Line):
    """Has a number beside the weights, which is trained from the first step on."""

    def __init__(self, weight: list[float]) -> None:
        super().__init__(weight)
        self.root.requires_grad_(False)
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + self.shift


def test_parameters_that_are_thawed_later_are_looked_at(tmp_path: Path):
    with pytest.raises(TrainingError, match="the gradient norm is inf at step 1"):
        fit(tmp_path, Shifted([1.0, 0.0]), loader([1, 1], [1, 1]), Thaws(), FiniteGuard())


def test_a_bad_micro_batch_stops_the_run_before_its_step(tmp_path: Path):
    line = Line([1.0, 1.0])
    with pytest.raises(TrainingError, match="is nan at step 1"):
        fit(tmp_path, line, loader([1, 1], [1, 1], [NAN, NAN], [1, 1]), FiniteGuard(), accumulate_grad_batches=2)
    assert line.weight.tolist() == pytest.approx([0.95, 0.95])


def test_the_reading_is_the_mean_over_micro_batches(tmp_path: Path):
    guard, readings = FiniteGuard(), []
    guard.listeners.append(readings.append)
    fit(tmp_path, Line([1.0, 1.0]), loader([1, 1], [3, 3]), guard, accumulate_grad_batches=2)
    assert [reading.loss for reading in readings] == pytest.approx([4])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_skipped_step_leaves_weights_and_moments_and_is_counted(tmp_path: Path, optimizer: type):
    with_bad, without = Line([1.0, 1.0], optimizer), Line([1.0, 1.0], optimizer)
    seen = Seen(metrics.SKIPPED_STEPS)
    bad = loader([1, 1], [NAN, 1], [2, 1], [float("inf"), 1], [1, 1])
    trainer = fit(tmp_path, with_bad, bad, FiniteGuard(on_nonfinite="skip"), seen, gradient_clip_val=1.0)
    fit(tmp_path, without, loader([1, 1], [2, 1], [1, 1]), FiniteGuard(), gradient_clip_val=1.0)
    assert with_bad.weight.tolist() == without.weight.tolist()
    assert seen.values == [0, 1, 1, 2, 2]
    assert trainer.global_step == 5


def test_too_many_skipped_steps_in_a_row_stop_the_run(tmp_path: Path):
    bad = [NAN, 1.0]
    guard = FiniteGuard(on_nonfinite="skip", max_skips=2)
    fit(tmp_path, Line([1.0, 1.0]), loader(bad, bad, [1, 1], bad, bad), guard)
    assert guard.skipped == 4
    again = FiniteGuard(on_nonfinite="skip", max_skips=2)
    again.load_state_dict(guard.state_dict())
    with pytest.raises(TrainingError, match="the loss is nan at step 0, after 2 skipped steps in a row"):
        fit(tmp_path, Line([1.0, 1.0]), loader(bad), again)


def test_a_limit_of_no_skips_is_refused():
    with pytest.raises(ConfigError, match=r"guards\.max_skips 0"):
        FiniteGuard(on_nonfinite="skip", max_skips=0)


# What the device decides, and the host reads later.


class Fused(Line):
    """One kernel for AdamW's step, which the device can be told not to take."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.1, fused=True)


@pytest.fixture
def read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, whose numbers are waited for."""
    monkeypatch.setattr("framework.training.callbacks.finite._is_waited_for", lambda device: True)


@pytest.mark.usefixtures("read_later")
@pytest.mark.parametrize("every", [1, 3, 50])
def test_a_step_that_is_skipped_unseen_is_as_one_that_was_not_there(tmp_path: Path, every: int):
    with_bad, without = Fused([1.0, 1.0]), Fused([1.0, 1.0])
    guard, readings = FiniteGuard(on_nonfinite="skip"), []
    guard.listeners.append(readings.append)
    bad = loader([1, 1], [NAN, 1], [2, 1], [float("inf"), 1], [1, 1])
    fit(tmp_path, with_bad, bad, guard, log_every_n_steps=every)
    trainer = fit(tmp_path, without, loader([1, 1], [2, 1], [1, 1]), FiniteGuard(), log_every_n_steps=every)
    assert with_bad.weight.tolist() == without.weight.tolist()
    assert guard.skipped == 2
    assert [reading.step for reading in readings] == [0, 1, 2, 3, 4]
    assert [reading.problem is None for reading in readings] == [True, False, True, False, True]
    assert trainer.global_step == 3


@pytest.mark.usefixtures("read_later")
@pytest.mark.parametrize("every", [1, 3, 50])
def test_nothing_is_stepped_after_what_is_to_stop_the_run(tmp_path: Path, every: int):
    line, one_step = Fused([1.0, 1.0]), Fused([1.0, 1.0])
    fit(tmp_path, one_step, loader([1, 1]), FiniteGuard())
    with pytest.raises(TrainingError, match="the loss is nan at step 1: the last checkpoint is unharmed"):
        fit(tmp_path, line, loader([1, 1], [NAN, 1], [2, 1], [1, 1]), FiniteGuard(), log_every_n_steps=every)
    assert line.weight.tolist() == one_step.weight.tolist()


@pytest.mark.usefixtures("read_later")
def test_no_checkpoint_has_steps_that_nobody_has_looked_at(tmp_path: Path):
    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "saved.ckpt")

    batches = loader([1, 1], [NAN, 1], [2, 1], [1, 1])
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        fit(tmp_path, Fused([1.0, 1.0]), batches, FiniteGuard(), Save())
    assert not (tmp_path / "saved.ckpt").exists()
    guard = FiniteGuard(on_nonfinite="skip")
    fit(tmp_path, Fused([1.0, 1.0]), batches, guard, Save())
    assert guard.state_dict() == {"skipped": 1, "in_a_row": 0}


@pytest.mark.usefixtures("read_later")
def test_too_many_unseen_skips_in_a_row_stop_the_run(tmp_path: Path):
    batches = loader(*[[NAN, 1.0]] * 5)
    with pytest.raises(TrainingError, match="the loss is nan at step 2, after 2 skipped steps in a row"):
        fit(tmp_path, Fused([1.0, 1.0]), batches, FiniteGuard(on_nonfinite="skip", max_skips=2))


# Two processes.


class Sharded(Line):
    """Each rank holds one of the two weights."""

    def configure_model(self) -> None:
        fully_shard(self.root, mesh=self.device_mesh["data_parallel"])


def bad_on_one_rank(run_dir: str) -> dict[str, Any]:
    """Rank 1 alone meets a loss that is not a number at step 1; in the second part it skips that step."""
    found: dict[str, Any] = {}
    for name in ("ddp", "fsdp2"):
        for guard in (FiniteGuard(), FiniteGuard(on_nonfinite="skip")):
            strategy = "ddp" if name == "ddp" else ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
            line: Line = Line([1.0, 1.0]) if name == "ddp" else Sharded([1.0, 1.0])
            norms = Seen(metrics.GRADIENT_NORM)
            trainer = quiet_trainer(Path(run_dir), callbacks=[guard, norms], max_epochs=1, strategy=strategy, devices=2)
            # The mean gradient over ranks is (3, 4) at first, of norm 5.
            mine = [[5.0, 8.0], [NAN, 1.0], [4.0, 4.0]] if trainer.global_rank else [[7.0, 8.0], [1.0, 1.0], [4.0, 4.0]]
            problem = ""
            try:
                trainer.fit(line, loader(*mine))
            except TrainingError as error:
                problem = error.problem
            local = getattr(line.weight, "_local_tensor", line.weight)
            weights = trainer.strategy.all_gather(local.detach()).flatten().tolist()
            found[f"{name} {guard.on_nonfinite}"] = {
                "problem": problem,
                "norms": norms.values,
                "skipped": guard.skipped,
                "weights": weights,
            }
    return found


def under_deepspeed(run_dir: str) -> dict[str, Any]:
    """Rank 1 alone meets a bad loss, at step 1; all meet an infinite gradient; skipping is asked for."""
    # DeepSpeed takes seconds to import.
    from framework.testing.processes.deepspeed_cpu import CPUDeepSpeedStrategy
    from framework.training.strategies.config import DeepSpeedOptions, StrategyConfig

    found: dict[str, Any] = {}
    for stage in (1, 3):
        for case in ("loss", "norm", "skip"):
            strategy = CPUDeepSpeedStrategy(StrategyConfig(name="deepspeed", deepspeed=DeepSpeedOptions(stage=stage)))
            norms = Seen(metrics.GRADIENT_NORM)
            guard = FiniteGuard(on_nonfinite="skip" if case == "skip" else "stop")
            trainer = quiet_trainer(Path(run_dir), callbacks=[guard, norms], max_epochs=1, strategy=strategy, devices=2)
            bad = [NAN, 1.0] if trainer.global_rank else [1.0, 1.0]
            line, batches = Line([1.0, 0.0 if case == "norm" else 1.0]), loader([10, 4], bad)
            problem = ""
            try:
                trainer.fit(line, batches)
            except (TrainingError, ConfigError) as error:
                problem = error.problem
            found[f"{stage} {case}"] = {"problem": problem, "norms": norms.values}
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_deepspeed_looks_at_losses_before_its_step_and_at_its_norm_after(tmp_path: Path):
    pytest.importorskip("deepspeed")
    results = run_forked(under_deepspeed, 2, run_dir=str(tmp_path)).results
    for result in results.values():
        for stage in (1, 3):
            assert result[f"{stage} loss"]["problem"] == "the loss is nan on rank 1 at step 1"
            assert result[f"{stage} loss"]["norms"] == pytest.approx([29**0.5])
            assert result[f"{stage} norm"]["problem"] == "the gradient norm is inf at step 0"
            assert result[f"{stage} skip"]["problem"].startswith("guards.on_nonfinite skip with DeepSpeed")


@pytest.mark.slow
def test_all_ranks_stop_or_skip_together_when_one_has_a_bad_loss(tmp_path: Path):
    results = run_forked(bad_on_one_rank, 2, run_dir=str(tmp_path)).results
    for result in results.values():
        for name in ("ddp", "fsdp2"):
            stopped, skipped = result[f"{name} stop"], result[f"{name} skip"]
            assert stopped["problem"] == "the loss is nan on rank 1 at step 1"
            assert stopped["norms"] == pytest.approx([5])
            copies = 2 if name == "ddp" else 1
            assert stopped["weights"] == pytest.approx([0.7, 0.6] * copies)
            assert skipped["problem"] == ""
            assert skipped["skipped"] == 1
            # The step after the skipped one has the gradient 2 / sqrt(w).
            expected = [2 / 0.7**0.5, 2 / 0.6**0.5]
            assert skipped["norms"][2] == pytest.approx((expected[0] ** 2 + expected[1] ** 2) ** 0.5)
            assert skipped["weights"] == pytest.approx([0.7 - 0.1 * expected[0], 0.6 - 0.1 * expected[1]] * copies)
