"""The rollout gap: how much worse a model predicts on its own rollouts than on the inputs it was trained with."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from framework.core.console import tracked
from framework.core.random.seeding import seed_of
from framework.core.shapes import Images, Labels
from framework.pra.loss import ObjectiveConfig, denoising_errors, draw_training_noise, flow_errors, generation_pass
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.model import PRA
from framework.pra.network.patches import patchify
from framework.pra.noise import SampleNoise
from framework.pra.shapes import TokenErrors


@dataclass(frozen=True, kw_only=True)
class RolloutGap:
    """Flow losses of one model, and their ratio.

    Attributes:
        on_training_inputs: squared error of the velocity, per value, on real images with the inputs of training.
        on_rollouts: the same on the model's own unguided rollouts, fed as they are.
        per_token: `on_rollouts / on_training_inputs` at each raster position: growth along it is error that compounds.
    """

    on_training_inputs: float
    on_rollouts: float
    per_token: list[float]

    @property
    def ratio(self) -> float:
        """`on_rollouts / on_training_inputs`; 1 is no gap, and both sides away from it are a mismatch."""
        return self.on_rollouts / self.on_training_inputs


@torch.no_grad()
def _errors(
    model: ImageGenerator,
    images: Images,
    labels: Labels,
    seeds: Sequence[int],
    objective: ObjectiveConfig,
    *,
    rollout: bool,
) -> TokenErrors:
    noise = draw_training_noise(SampleNoise(seeds, images.device), model.config, objective)
    tokens = patchify(images, model.config.patch_size)
    if isinstance(model, PixelDiffusion):
        return denoising_errors(model, tokens, labels, noise)
    assert isinstance(model, PRA)
    made = generation_pass(model, tokens, labels, objective, noise)
    # A rollout already consists of what the model fed itself: it goes in unchanged.
    hidden = model.transformer(tokens, labels) if rollout else made.rollout.hidden
    return flow_errors(model, made.targets, hidden, noise)


def measure_rollout_gap(
    model: ImageGenerator,
    real: Images,
    real_labels: Labels,
    rollouts: Images,
    rollout_labels: Labels,
    objective: ObjectiveConfig,
    *,
    seed: int = 0,
    batch_size: int = 256,
) -> RolloutGap:
    """Measure the gap (ours).

    Both sides are the head's flow loss at the same noise. On the training side, images are real and the transformer's
    inputs are made as in training (clean, noisy, or decoded from perturbed states). On the other side, images are the
    model's own unguided rollouts and the inputs are these rollouts themselves. Targets are the images' pixel tokens,
    or their encoded states. The ratio makes variants with unlike targets comparable. `diffusion` feeds itself no
    tokens: its ratio is the denoising loss on its samples over that on real images.

    Args:
        model: in evaluation mode, on the images' device.
        real: real images: those that it was trained on for the mismatch of the inputs alone; on held-out ones the ratio
            holds what was not learned as well.
        real_labels: their classes, without the null class.
        rollouts: unguided samples of the model, in [-1, 1].
        rollout_labels: their classes, without the null class.
        objective: as in training; no class is dropped here.
        seed: seed of the noise.
        batch_size: images at a time.
    """

    def mean_errors(images: Images, labels: Labels, *, rollout: bool) -> Float[Tensor, "token"]:
        parts: list[TokenErrors] = []
        side = "rollouts" if rollout else "training inputs"
        batches = [range(len(images))[start : start + batch_size] for start in range(0, len(images), batch_size)]
        for batch in tracked(batches, f"flow losses on {side}", total=len(images), images=len):
            chosen = slice(batch.start, batch.stop)
            seeds = [seed_of("rollout gap", seed, number) for number in batch]
            parts.append(_errors(model, images[chosen], labels[chosen], seeds, objective, rollout=rollout))
        return torch.cat(parts).mean(0)

    training = mean_errors(real, real_labels, rollout=False)
    own = mean_errors(rollouts, rollout_labels, rollout=True)
    return RolloutGap(
        on_training_inputs=training.mean().item(),
        on_rollouts=own.mean().item(),
        per_token=(own / training).tolist(),  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    )
