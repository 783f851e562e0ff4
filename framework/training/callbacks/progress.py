"""The progress bar."""

from lightning.pytorch import LightningModule, Trainer

from framework.core.compat.lightning_compat import DescribedProgressBar, logs_this_step


class StepProgressBar(DescribedProgressBar):
    """Rich's bar over the batches of an epoch, with the optimizer's step out of how many.

    Metrics are those of the last log: to read one from a GPU is to wait for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, int | str | float | dict] = {}

    def describe_epoch(self, epoch: int) -> str:
        # Lightning's own shows "Epoch 3/-2" for a run that is bounded by steps.
        return f"epoch {epoch}"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict]:
        if logs_this_step(trainer) or not trainer.training:
            self._shown = super().get_metrics(trainer, pl_module)
            self._shown.pop("v_num", None)
        total = f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""
        return {"step": f"{trainer.global_step}{total}", **self._shown}
