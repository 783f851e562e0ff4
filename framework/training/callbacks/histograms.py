"""Histograms of weights and gradients by part of the model, also where they are sharded."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from framework.tracking.wandb_run import TrackedRun
from framework.training.shapes import Values
from framework.training.strategies.backend import backend_of_strategy, backend_of_tensor, is_sharded

BINS = 64

log = logging.getLogger(__name__)


class Histograms(Callback):
    """Logs histograms of weights and gradients of each part of the model to W&B every n optimizer steps.

    Before the step is taken and the gradient clipped. Every value counts once: where the ranks hold parts, each counts
    its own and they add up, in two small collectives; where all hold the same, the first alone counts. The bins span
    the finite values. Where gradients cannot be seen (DeepSpeed) only weights are shown, with a message.

    Args:
        every_n_steps: optimizer steps between histograms.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self._made_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        wanted = any(isinstance(logger, TrackedRun) for logger in trainer.loggers)
        # All ranks take part, or none.
        self._active = bool(trainer.strategy.broadcast(wanted))
        if not wanted and trainer.is_global_zero:
            log.warning("run.histogram_every_n_steps is set, and there is no W&B to log histograms to")
        backend = backend_of_strategy(trainer.strategy)
        if not backend.sees_gradients and trainer.is_global_zero:
            log.warning(
                "histograms of gradients are left out: %s does not show them; weights are logged", backend.title
            )

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        step = trainer.global_step
        # Some engines come here at every micro-batch.
        if not self._active or (step + 1) % self.every_n_steps or step == self._made_at:
            return
        self._made_at = step
        sharded = is_sharded(pl_module)
        if not sharded and not trainer.is_global_zero:
            return
        parts = _by_part(pl_module, gradients=backend_of_strategy(trainer.strategy).sees_gradients)
        histograms = count(parts, pl_module.device, together=sharded and trainer.world_size > 1)
        for logger in trainer.loggers:
            if isinstance(logger, TrackedRun):
                logger.log_histograms(histograms, step)


def part_names(names: Iterable[str]) -> dict[str, str]:
    """The part of the model that each parameter belongs to: its first name that is not common to all."""
    split = {name: name.split(".") for name in names}
    depth = 0
    while len(split) > 1 and len({tuple(words[: depth + 1]) for words in split.values()}) == 1:
        depth += 1
    return {name: words[min(depth, max(0, len(words) - 2))] for name, words in split.items()}


def _by_part(module: LightningModule, *, gradients: bool) -> dict[str, list[Values]]:
    """This rank's values of each histogram, in the same order on every rank."""
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    parts: dict[str, list[Values]] = defaultdict(list)
    for name, part in part_names(trained).items():
        parameter = trained[name]
        parts[f"weights/{part}"].append(backend_of_tensor(parameter).own_values(parameter))
        if gradients:
            gradient = parameter.grad
            empty = torch.empty(0, device=parameter.device)
            parts[f"gradients/{part}"].append(
                empty if gradient is None else backend_of_tensor(gradient).own_values(gradient)
            )
    return dict(parts)


def count(
    parts: Mapping[str, list[Values]], device: torch.device, *, together: bool = False
) -> dict[str, tuple[list[int], list[float]]]:
    """Counts and edges of a histogram of each part's finite values; parts without any are left out.

    Args:
        parts: values of each histogram.
        device: where the counts are put together.
        together: add up over all ranks, which all call this with the same names.
    """
    if not parts:
        return {}
    infinity = float("inf")
    # The largest of the negated values and of the values: one collective for both ends. Offloaded values are counted
    # where they are.
    ends = torch.full((len(parts), 2), -infinity, device=device)
    finite = [[_finite(values) for values in pieces if values.numel()] for pieces in parts.values()]
    for place, pieces in enumerate(finite):
        for values in pieces:
            if values.numel():
                low, high = torch.aminmax(values)
                ends[place] = torch.maximum(ends[place], torch.stack([-low, high]).to(device))
    if together:
        dist.all_reduce(ends, op=dist.ReduceOp.MAX)
    counts = torch.zeros((len(parts), BINS), device=device, dtype=torch.float64)
    spans: list[tuple[float, float]] = []
    for place, (pieces, (negated, high)) in enumerate(zip(finite, ends.tolist(), strict=True)):
        low = -negated
        if low == high:
            # As numpy does for values that are all equal.
            low, high = low - 0.5, high + 0.5
        spans.append((low, high))
        for values in pieces:
            if values.numel():
                counts[place] += torch.histc(values, bins=BINS, min=low, max=high).to(device)
    if together:
        dist.all_reduce(counts)
    found = {}
    for name, row, (low, high) in zip(parts, counts.tolist(), spans, strict=True):
        if low <= high and sum(row):
            found[name] = [round(n) for n in row], torch.linspace(low, high, BINS + 1, dtype=torch.float64).tolist()
    return found


def _finite(values: Values) -> Values:
    values = values.float()
    return values[torch.isfinite(values)]
