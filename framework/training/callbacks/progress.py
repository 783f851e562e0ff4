"""The progress bar."""

from lightning.pytorch import LightningModule, Trainer

from framework.core.compat.lightning_compat import DescribedProgressBar


class StepProgressBar(DescribedProgressBar):
    """Rich's bar over the batches of an epoch, with the optimizer's step out of how many."""

    def describe_epoch(self, epoch: int) -> str:
        # Lightning's own shows "Epoch 3/-2" for a run that is bounded by steps.
        return f"epoch {epoch}"

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict]:
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        total = f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""
        return {"step": f"{trainer.global_step}{total}", **shown}
