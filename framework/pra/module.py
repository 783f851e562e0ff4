"""PRA as a LightningModule: hooks and logging; the mathematics is in `loss` and `sampling`."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer

from framework.core.errors import ConfigError
from framework.core.random.philox import Seeds, stream_seeds
from framework.core.random.seeding import seed_of
from framework.core.serialization import to_json
from framework.core.shapes import Images, Labels
from framework.data.loading.batch import ImageBatch
from framework.data.module import ShardDataModule
from framework.evaluation.features.network import FeatureNetwork
from framework.evaluation.perceptual import ClassifierDistance, NetworkDistance, PerceptualDistance
from framework.pra.callbacks import SampleGrid, SampleGridConfig
from framework.pra.checkpoint import ARCHITECTURE, OBJECTIVE, check_architecture
from framework.pra.export import initialise_from_export, warn_of_other_classes
from framework.pra.loss import Losses, ObjectiveConfig, losses_of_seeds
from framework.pra.network.build import build_generator, check_parts, train_only
from framework.pra.network.config import VARIANTS, PRAConfig
from framework.pra.network.generator import ImageGenerator
from framework.pra.planning.flops import training_flops_per_image
from framework.pra.sampling import check_classes, check_sampler
from framework.pra.shapes import Scalar
from framework.training.callbacks.step_metrics import log_step
from framework.training.ema import check_decay, decay_at, update_ema
from framework.training.length import total_steps
from framework.training.optimizer import ClippingModule, OptimizerConfig, build_optimizer, build_schedule, steps_itself
from framework.training.strategies.placement import build_with_ema, placement_of

METRIC_NAMES = {
    "total": "total",
    "flow": "flow_mse",
    "jump": "jump_mse",
    "reconstruction": "reconstruction_l1",
    "kl": "kl_nats_per_token",
    "perceptual": "perceptual_distance",
}
"""Metric of each field of `Losses`, under `loss/` in training and `validation/` in validation."""


class PRAModule(ClippingModule):
    """Trains a PRA model (arXiv 2606.27978) and an exponential moving average of it.

    Args:
        architecture: the model.
        objective: what is minimised.
        optimizer: AdamW and its schedule.
        grid: the grid of samples made during training.
        ema_decay: decay of the averaged weights, which validation and sampling use.
        perceptual_network: checkpoint of a classifier (see `framework.evaluation`) or a feature network, such as
            `NetworkFeatures`, whose activations give the perceptual distance; needed when
            `objective.perceptual_weight` is not 0.
        initial_weights: what `framework export` wrote, to start from; a run that goes on from a checkpoint takes that.
            Weights of a head without jumps may start one with.
        trainable: parts that learn, of transformer, head, decoder and encoder; the others stay as `initial_weights` has
            them. All by default.
        seed: seed of the initial weights, which are a function of (seed, name) alone, and of the training noise, one
            of (seed, epoch, image).

    Raises:
        ConfigError: settings that do not go together, named.
    """

    model: ImageGenerator
    ema: ImageGenerator
    compiles_loss = True

    def __init__(
        self,
        *,
        architecture: PRAConfig,
        objective: ObjectiveConfig = ObjectiveConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        grid: SampleGridConfig = SampleGridConfig(),
        ema_decay: float = 0.9999,
        perceptual_network: str | FeatureNetwork | None = None,
        initial_weights: str | None = None,
        trainable: list[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_decay(ema_decay)
        if (objective.perceptual_weight != 0) != (perceptual_network not in (None, "")):
            named = perceptual_network.name if isinstance(perceptual_network, FeatureNetwork) else perceptual_network
            raise ConfigError(
                f"perceptual_weight {objective.perceptual_weight} with perceptual_network {named}",
                hint="set both, or neither",
            )
        if objective.rollout_passes > 1 and architecture.decoder_context == "none":
            raise ConfigError(
                f"rollout_passes {objective.rollout_passes} with decoder_context none",
                hint="without a context every pass decodes the same; use rollout_passes 1",
            )
        if grid.every_n_steps:
            check_classes(grid.classes or [0], architecture.num_classes, grid.sampler)
            check_sampler(architecture, grid.sampler)
        self.architecture, self.objective, self.optimizer_config = architecture, objective, optimizer
        self.grid, self.ema_decay, self.seed = grid, ema_decay, seed
        self.initial_weights, self.trainable = initial_weights, trainable
        if trainable is not None:
            check_parts(architecture, trainable)
            if not initial_weights:
                problem = f"trainable {list(trainable)} without initial_weights"
                raise ConfigError(problem, hint="give weights for the other parts, which `framework export` writes")
        self.perceptual = _distance_in(perceptual_network) if perceptual_network else None
        self._training_losses = losses_of_seeds

    def configure_model(self) -> None:
        if hasattr(self, "model"):
            return
        placement = placement_of(self)
        if placement.compile == "whole":
            # Not of the average too: its batches have other sizes, and each would be compiled anew.
            self._training_losses = torch.compile(losses_of_seeds, dynamic=False, fullgraph=True)  # pyright: ignore
        self.model, self.ema = build_with_ema(lambda: build_generator(self.architecture), placement, seed=self.seed)
        if self.initial_weights and placement.device.type != "meta":
            initialise_from_export(self.model, self.ema, Path(self.initial_weights))
        train_only(self.model, self.trainable)

    def configure_callbacks(self) -> list[Callback]:
        return [SampleGrid(self.grid)]

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ShardDataModule):
            if data.kind != "images":
                raise ConfigError(f"data.kind is {data.kind}", hint="train this model on images")
            theirs = {
                "image_size": data.train_transform.size,
                "channels": data.train_transform.channels,
                "num_classes": data.num_classes,
            }
            for name, value in theirs.items():
                ours = getattr(self.architecture, name)
                unconditional = name == "num_classes" and ours == 1
                if ours != value and not unconditional:
                    raise ConfigError(
                        f"{name} is {ours} in the model and {value} in the data",
                        hint=f"set model.architecture.{name} to {value}, or use other data",
                    )
            if self.initial_weights and self.architecture.num_classes > 1:
                warn_of_other_classes(Path(self.initial_weights), data.class_names)

    @property
    def tokens_per_sample(self) -> int:
        """Pixel tokens of an image."""
        return self.architecture.num_tokens

    def flops_per_sample(self) -> int:
        """Floating-point operations of a forward and a backward pass on an image."""
        trainable = None if self.trainable is None else tuple(self.trainable)
        return training_flops_per_image(self.architecture, self.objective, trainable)[1]

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Scalar:
        losses = self._training_losses(self.model, *self._inputs(batch, "train", batch.sample_passes()))
        log_step(self, self._metrics("loss", losses))
        return losses.total

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        losses = losses_of_seeds(self.ema, *self._inputs(batch, "validation", [0] * len(batch)))
        self.log_dict(self._metrics("validation", losses), batch_size=len(batch))

    def _inputs(
        self, batch: ImageBatch, purpose: str, passes: list[int]
    ) -> tuple[Images, Labels, Seeds, ObjectiveConfig, PerceptualDistance | None]:
        """What `losses_of_seeds` takes besides the model."""
        indices = cast(list[int], batch.indices.tolist())  # pyright: ignore[reportUnknownMemberType]
        seeds = [seed_of(purpose, self.seed, each, index) for each, index in zip(passes, indices, strict=True)]
        labels = batch.labels if self.architecture.num_classes > 1 else torch.zeros_like(batch.labels)
        return batch.images, labels, stream_seeds(seeds, self.device), self.objective, self.perceptual

    def _metrics(self, prefix: str, losses: Losses) -> dict[str, Scalar]:
        shown = {field.name for field in fields(losses)}
        if VARIANTS[self.architecture.variant].target == "pixels":
            shown -= {"reconstruction", "kl"}
        if not self.architecture.head_jumps:
            shown -= {"jump"}
        if self.perceptual is None:
            shown -= {"perceptual"}
        return {f"{prefix}/{METRIC_NAMES[n]}": getattr(losses, n).detach() for n in sorted(shown)}

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], object] | None = None,
    ) -> None:
        """Makes a step, and moves the averaged weights after it.

        Args:
            epoch: counted from 0.
            batch_idx: the micro-batch in it.
            optimizer: makes the step.
            optimizer_closure: a forward and a backward pass.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        # DeepSpeed's engine counts accumulated micro-batches itself and is called for each of them.
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch:
            update_ema(self.ema, self.model, decay_at(self.global_step, self.ema_decay))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_optimizer(self.model, self.optimizer_config, fused=steps_itself(self.trainer))
        schedule = build_schedule(optimizer, self.optimizer_config, total_steps(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        checkpoint[ARCHITECTURE] = to_json(self.architecture)
        checkpoint[OBJECTIVE] = to_json(self.objective)

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        saved = checkpoint.get(ARCHITECTURE)
        check_architecture(cast("Mapping[str, object] | None", saved), self.architecture)


def _distance_in(network: str | FeatureNetwork) -> PerceptualDistance:
    return NetworkDistance(network) if isinstance(network, FeatureNetwork) else ClassifierDistance(network)
