"""The progress bar."""

from lightning.pytorch import LightningModule, Trainer

from framework.core.compat.lightning_compat import DescribedProgressBar, logs_this_step
from framework.tracking import metric_names as metrics


class StepProgressBar(DescribedProgressBar):
    """Rich's bar over the batches of an epoch, with the optimizer's step out of how many.

    Losses and what else is logged for it are those of the last log: to read a number from a GPU is to wait for it. A
    module does not ask for its losses to be shown (`prog_bar`), since Lightning would read them in every step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, int | str | float | dict] = {}

    def describe_epoch(self, epoch: int) -> str:
        # Lightning's own shows "Epoch 3/-2" for a run that is bounded by steps.
        return f"epoch {epoch}"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict]:
        if logs_this_step(trainer) or not trainer.training:
            losses = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith(metrics.LOSSES)}
            self._shown = {**losses, **super().get_metrics(trainer, pl_module)}
            self._shown.pop("v_num", None)
        total = f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""
        return {"step": f"{trainer.global_step}{total}", **self._shown}
