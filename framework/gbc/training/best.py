"""The best prompts and parameters of a training in the run's folder."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from framework.core.collectives import broadcast_object
from framework.core.io import atomic_write
from framework.core.serialization import from_json, parse_object, to_json

BEST, GRAPH, SOFT_PROMPTS, ADAPTERS = "best", "graph.yaml", "soft_prompts.safetensors", "adapters"
"""The folder in the run's with the best, and what is in it."""
VALIDATION = "validation.json"
"""In that folder, when the best was found."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """When the best parameters were found.

    Attributes:
        step: optimizer steps that were done.
        loss: of the validation; None where nothing was validated.
    """

    step: int
    loss: float | None = None


def read_best(folder: Path) -> Best | None:
    """What is noted beside the best parameters in a folder; None where nothing is, or nothing that can be read."""
    try:
        return from_json(Best, parse_object((folder / VALIDATION).read_bytes()))
    except (OSError, ValueError):
        return None


class SaveBest(Callback):
    """Keeps the prompts of the search, and the trained parameters with the least validation loss.

    A task that failed counts as 1 in that loss. Parameters belong to the prompts they were trained with: when the
    search keeps other prompts, the comparison begins anew. Where nothing was validated, the last ones are kept.

    Attributes:
        loss: the least so far; None before the first validation, and after the prompts have changed.

    Args:
        write_prompts: writes the graph into a folder; called on the first process.
        write_parameters: writes the parameters into a folder, and says whether there are any; called on all processes
            together, the first one writes.
    """

    def __init__(self, write_prompts: Callable[[Path], None], write_parameters: Callable[[Path], bool]) -> None:
        self.write_prompts, self.write_parameters = write_prompts, write_parameters
        self.loss: float | None = None

    def start_anew(self, trainer: Trainer, *, step: int) -> None:
        """Other prompts were kept in a step: their best parameters are to be found."""
        self.loss = None
        self._save_prompts(trainer)
        self._save_parameters(trainer, step)

    def on_train_start(self, trainer: Trainer, pl_module: object) -> None:
        # What a validation found after the checkpoint of its step was made: it is not made again.
        found = broadcast_object(read_best(_folder(trainer)) if trainer.is_global_zero else None)
        if found is not None and found.step == trainer.global_step:
            self.loss = found.loss

    def on_validation_end(self, trainer: Trainer, pl_module: object) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        loss = validation_loss(trainer)
        if self.loss is None or loss < self.loss:
            self.loss = loss
            self._save_parameters(trainer, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: object) -> None:
        self._save_prompts(trainer)
        if self.loss is None:
            self._save_parameters(trainer, trainer.global_step)

    def _save_prompts(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self.write_prompts(_folder(trainer))

    def _save_parameters(self, trainer: Trainer, step: int) -> None:
        """Parameters as they are now, after a step."""
        if self.write_parameters(_folder(trainer)) and trainer.is_global_zero:
            with atomic_write(_folder(trainer) / VALIDATION) as stream:
                stream.write(json.dumps(to_json(Best(step=step, loss=self.loss))).encode())


def validation_loss(trainer: Trainer) -> float:
    """The loss of the validation that was made last, a task that failed counted as 1."""
    found = trainer.callback_metrics
    loss, failed = float(found["validation/loss"]), float(found["validation/failed_share"])
    # The loss is of those that did not fail: what makes tasks fail must not look good.
    return (1 - failed) * loss + failed


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / BEST
