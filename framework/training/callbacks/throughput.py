"""Speed, memory and learning rate as metrics."""

import resource
import time
from collections import deque
from collections.abc import Sized
from typing import NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from framework.core.compat.lightning_compat import logs_this_step
from framework.tracking import metric_names as metrics
from framework.tracking.devices import Device, recognised_device
from framework.training.callbacks.order import AfterOthers, put_last


class _Batch(NamedTuple):
    samples: int
    wait_seconds: float
    total_seconds: float


class Throughput(Callback):
    """Logs samples per second, the time of a batch and of waiting for its data, memory, and the learning rate.

    Times are means over the last `trainer.log_every_n_steps` batches; validation, grids and checkpoints between batches
    are not counted in. Nothing waits for the device until metrics are logged: single batches have the time in which the
    host told the device what to do, and the last one before a log what the device took longer.

    A module with `tokens_per_sample` has tokens per second besides. Where the device's peak speed and the model's
    operations (the module's `flops_per_sample()`) are known, the share of the peak that the model's operations take is
    logged too: model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B).

    Args:
        sample_unit: what a sample is, such as image; stands in the name of the metric.
        device: the accelerator; by default it is recognised by its name.
    """

    def __init__(self, sample_unit: str, device: Device | None = None) -> None:
        self.sample_unit, self.device = sample_unit, device
        self._next_batch = AfterOthers(self._wait_for_next)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            put_last(trainer, self._next_batch)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        window: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        self._recent: deque[_Batch] = deque(maxlen=max(1, window))
        # A run that resumes within an epoch does not start one.
        self._ended = time.perf_counter()
        device = self.device
        if device is None and pl_module.device.type == "cuda":
            device = recognised_device(torch.cuda.get_device_name(pl_module.device))
        count = getattr(pl_module, "flops_per_sample", None)
        # Samples per second at the peak of one device.
        self._peak_rate = device.bfloat16_flops / count() if device is not None and count is not None else None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ended = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._started = time.perf_counter()
        # At the end of the batch the schedule has already set the next step's.
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Sized, batch_idx: int
    ) -> None:
        logs = logs_this_step(trainer)
        if logs and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        now = time.perf_counter()
        samples = len(batch) * trainer.world_size
        self._recent.append(_Batch(samples, self._started - self._ended, now - self._ended))
        if logs:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = sum(b.total_seconds for b in self._recent)
        rate = sum(b.samples for b in self._recent) / seconds
        measured = {
            metrics.samples_per_second(self.sample_unit): rate,
            metrics.BATCH_SECONDS: seconds / len(self._recent),
            metrics.DATA_WAIT_SECONDS: sum(b.wait_seconds for b in self._recent) / len(self._recent),
            metrics.MEMORY_PEAK_GIB: _peak_memory_gib(pl_module.device),
            metrics.LEARNING_RATE: self._learning_rate,
        }
        if self._peak_rate is not None:
            measured[metrics.MODEL_FLOPS_UTILISATION] = rate / trainer.world_size / self._peak_rate
        if (tokens := getattr(pl_module, "tokens_per_sample", None)) is not None:
            measured[metrics.TOKENS_PER_SECOND] = rate * tokens
        # On the host: each copy to the device would be waited for.
        pl_module.log_dict({name: torch.tensor(value) for name, value in measured.items()})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start_clock()

    def _wait_for_next(self, trainer: Trainer) -> None:
        self.start_clock()

    def start_clock(self) -> None:
        """From now on the next batch is waited for."""
        self._ended = time.perf_counter()


def _peak_memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Linux gives kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
