"""Curves of the metrics at the end of a run."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from framework.tracking.curves import draw_curves


class Curves(Callback):
    """Draws `curves.png` in the run's folder when training ends, also when it is interrupted."""

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            draw_curves(Path(trainer.default_root_dir))
