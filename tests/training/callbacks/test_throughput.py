"""Speed is measured where it is spent."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import IterableDataset

from framework.data.loading.batch import ImageBatch
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.tracking import metric_names as metrics
from framework.tracking.devices import Device
from framework.training.callbacks.throughput import Throughput

IMAGES, BATCHES, SLEEP = 4, 4, 0.05
IMAGES_PER_SECOND = metrics.samples_per_second("image")


class SlowBatches(IterableDataset[ImageBatch]):
    """Batches that take their time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __iter__(self) -> Iterator[ImageBatch]:
        for seed in range(BATCHES):
            time.sleep(self.seconds)
            yield tiny_batch(tiny_config(), IMAGES, seed=seed)


class Sleeper(Callback):
    """Takes its time in a hook, as a grid, a checkpoint or a validation does."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, lambda *_: time.sleep(SLEEP))


class Rates(Callback):
    """The learning rate that each step was taken with."""

    def __init__(self) -> None:
        self.used: list[float] = []
        self.logged: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: object) -> None:
        self.used.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if metrics.LEARNING_RATE in trainer.callback_metrics:
            self.logged.append(trainer.callback_metrics[metrics.LEARNING_RATE].item())


def fit(
    run_dir: Path, *callbacks: Callback, data_seconds: float = 0.0, unit: str = "image", every: int = BATCHES
) -> dict[str, float]:
    trainer = quiet_trainer(run_dir, callbacks=[Throughput(unit), *callbacks], max_epochs=1, log_every_n_steps=every)
    trainer.fit(tiny_module(), datamodule=Batches(SlowBatches(data_seconds)))
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def test_names_and_sizes(tmp_path: Path):
    measured = fit(tmp_path)
    assert measured[IMAGES_PER_SECOND] == pytest.approx(IMAGES / measured[metrics.BATCH_SECONDS], rel=1e-3)
    assert 0 <= measured[metrics.DATA_WAIT_SECONDS] < measured[metrics.BATCH_SECONDS] < 5
    assert 0.1 < measured[metrics.MEMORY_PEAK_GIB] < 20


@pytest.mark.slow
def test_utilisation_is_the_share_of_the_peak(tmp_path: Path):
    device = Device(name="toy", memory_bytes=1, bfloat16_flops=1e9, memory_bandwidth=1e9, link_bandwidth=1e9, words=())
    trainer = quiet_trainer(tmp_path, callbacks=[Throughput("image", device)], max_epochs=1, log_every_n_steps=BATCHES)
    module = tiny_module()
    trainer.fit(module, datamodule=Batches(SlowBatches(0.0)))
    measured = {name: value.item() for name, value in trainer.callback_metrics.items()}
    expected = measured[IMAGES_PER_SECOND] * module.flops_per_sample() / 1e9
    assert measured[metrics.MODEL_FLOPS_UTILISATION] == pytest.approx(expected, rel=1e-4)


def test_utilisation_is_left_out_where_the_peak_is_not_known(tmp_path: Path):
    assert metrics.MODEL_FLOPS_UTILISATION not in fit(tmp_path)


@pytest.mark.slow
def test_tokens_and_other_samples(tmp_path: Path):
    assert fit(tmp_path / "images")[metrics.TOKENS_PER_SECOND] > 0
    measured = fit(tmp_path / "tasks", unit="task")
    assert IMAGES_PER_SECOND not in measured
    # Four tokens of an image.
    assert measured[metrics.TOKENS_PER_SECOND] == pytest.approx(
        4 * measured[metrics.samples_per_second("task")], rel=1e-4
    )


@pytest.mark.slow
def test_slow_data_are_waited_for(tmp_path: Path):
    measured = fit(tmp_path, data_seconds=SLEEP)
    assert measured[metrics.DATA_WAIT_SECONDS] > 0.7 * SLEEP
    assert measured[metrics.BATCH_SECONDS] > measured[metrics.DATA_WAIT_SECONDS]


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_before_backward"])
def test_slow_steps_are_not_slow_data(tmp_path: Path, hook: str):
    measured = fit(tmp_path, Sleeper(hook))
    assert measured[metrics.BATCH_SECONDS] > SLEEP
    assert measured[metrics.DATA_WAIT_SECONDS] < 0.5 * SLEEP


@pytest.mark.slow
def test_grids_and_checkpoints_between_batches_are_not_counted_in(tmp_path: Path):
    measured = fit(tmp_path, Sleeper("on_train_batch_end"))
    assert measured[metrics.DATA_WAIT_SECONDS] < 0.5 * SLEEP


def test_the_learning_rate_is_that_of_the_step(tmp_path: Path):
    rates = Rates()
    fit(tmp_path, rates, every=1)
    assert rates.used == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3])
    assert rates.logged == pytest.approx(rates.used[:-1])


def test_metrics_come_at_logs_alone_and_lie_on_the_host(tmp_path: Path):
    class Seen(Callback):
        def __init__(self) -> None:
            self.there: list[bool] = []

        def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
            self.there.append(IMAGES_PER_SECOND in trainer.callback_metrics)

    seen = Seen()
    fit(tmp_path, seen, every=2)
    assert seen.there == [False, False, True, True]
