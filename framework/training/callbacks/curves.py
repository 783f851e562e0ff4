"""Curves of the metrics at the end of a run."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from framework.tracking.curves import draw_curves


class Curves(Callback):
    """Draws `curves.png` in the run's folder when training ends, and also when an error ends it."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            draw_curves(Path(trainer.default_root_dir))
