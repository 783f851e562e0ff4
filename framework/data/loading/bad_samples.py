"""Bad samples as a metric."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from framework.data.module import ShardDataModule
from framework.tracking.metric_names import BAD_SAMPLES


class BadSamples(Callback):
    """Logs how many different bad samples all processes have met since their start, where they are skipped."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, ShardDataModule) and data.loading.on_bad_sample == "skip":
            pl_module.log(BAD_SAMPLES, float(data.num_bad_samples), sync_dist=True, reduce_fx="sum", batch_size=1)
