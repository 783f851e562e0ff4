"""Bad samples as a metric."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from framework.data.loading.loader import LoadingConfig
from framework.tracking.metric_names import BAD_SAMPLES


class BadSamples(Callback):
    """Logs how many different bad samples all processes have met since their start, where they are skipped."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        loading = getattr(data, "loading", None)
        if isinstance(loading, LoadingConfig) and loading.on_bad_sample == "skip":
            pl_module.log(BAD_SAMPLES, float(data.num_bad_samples), sync_dist=True, reduce_fx="sum", batch_size=1)
