"""A warning when the loss jumps."""

import logging
import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from framework.core.collectives import rank_and_size
from framework.core.errors import ConfigError
from framework.tracking import metric_names as metrics
from framework.training.callbacks.finite import FiniteGuard, Reading
from framework.training.callbacks.step_metrics import log_step

_DEVIATION = 1.4826
"""Median absolute deviations to standard deviations, for a normal distribution."""
_LEAST = 0.01
"""Smallest deviation counted, as a share of the median (ours): a loss that hardly moves has no spikes."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SpikeConfig:
    """When a loss counts as a spike.

    Args:
        threshold: standard deviations above the median of the window, estimated from the median absolute deviation; 0
            turns the detector off.
        window: optimizer steps that it looks back on; a quarter of them must be there before it judges.
    """

    threshold: float = 10.0
    window: int = 200

    def __post_init__(self) -> None:
        if self.threshold < 0 or self.window < 4:
            raise ConfigError(
                f"guards.spikes.threshold {self.threshold}, guards.spikes.window {self.window}",
                hint="use 0 or more, 4 or more",
            )


class LossSpikes(Callback):
    """Warns when the mean loss of a step stands out from the last ones; `guards/loss_spikes` counts such steps.

    A spike enters the window like any other loss, which moves a median little, and a level that stays becomes the new
    normal. Only the first of several in a row is told.

    Args:
        config: when a loss counts as a spike.
        readings: tells of the losses, when they are on the host.
    """

    def __init__(self, config: SpikeConfig, readings: FiniteGuard) -> None:
        self.config, self.readings = config, readings
        self.spikes = 0
        self._losses: deque[float] = deque(maxlen=config.window)
        self._spiking = False
        self._judged = self._logged = 0
        if config.threshold:
            readings.listeners.append(self._judge)

    def _judge(self, reading: Reading) -> None:
        self._judged += 1
        # What is not a number is the other guard's.
        if not math.isfinite(reading.loss):
            return
        deviations = self._deviations(reading.loss)
        spiking = deviations > self.config.threshold
        if spiking:
            self.spikes += 1
            if not self._spiking and rank_and_size()[0] == 0:
                log.warning(
                    "loss spike at step %d: %.4g, %.0f standard deviations above the median of the last %d steps",
                    *(reading.step, reading.loss, deviations, len(self._losses)),
                )
        self._spiking = spiking
        self._losses.append(reading.loss)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        if self._judged != self._logged:
            self._logged = self._judged
            # On the host: a copy to the device would be waited for.
            log_step(pl_module, {metrics.LOSS_SPIKES: torch.tensor(float(self.spikes))})

    def _deviations(self, loss: float) -> float:
        """Robust standard deviations of a loss above the window's median; 0 while the window is too short."""
        if len(self._losses) < self.config.window // 4:
            return 0.0
        middle = median(self._losses)
        spread = _DEVIATION * median(abs(other - middle) for other in self._losses)
        return (loss - middle) / max(spread, _LEAST * abs(middle), 1e-12)

    def state_dict(self) -> dict[str, object]:
        self.readings.read()
        return {"spikes": self.spikes, "losses": list(self._losses), "spiking": self._spiking}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.spikes, self._spiking = state_dict["spikes"], state_dict["spiking"]
        self._losses = deque(state_dict["losses"], maxlen=self.config.window)
