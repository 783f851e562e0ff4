"""The training objective as pure functions: a model, images, labels and noise in; losses out.

Generation: flow matching of the head on hidden states that come from the variant's training inputs. Reconstruction:
the perturbed states, through the decoder, against the pixels. The split follows arXiv 2606.27978; the exact forms and
weights are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from framework.core.errors import ConfigError
from framework.core.random.philox import Seeds
from framework.core.shapes import Images, Labels
from framework.pra.network.config import VARIANTS, PRAConfig
from framework.pra.network.diffusion import PixelDiffusion
from framework.pra.network.generator import ImageGenerator
from framework.pra.network.head import bounded_error, interpolate
from framework.pra.network.jumps import JumpNoise, jump_errors, jump_noise
from framework.pra.network.model import PRA
from framework.pra.network.patches import patchify, unpatchify
from framework.pra.noise import SampleNoise
from framework.pra.shapes import (
    ClassMask,
    HeadNoise,
    Hidden,
    PixelTokens,
    Scalar,
    States,
    Targets,
    Times,
    TokenErrors,
)

Perceptual = Callable[[Images, Images], Scalar]
"""A distance between decoded and real images, differentiable in the first."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised; all of it ours where the paper is silent.

    Args:
        rollout_passes: K, how often the transformer's inputs are decoded anew from the perturbed states in the
            context of the pass before (variant `pra`); 0 is teacher forcing, a large K tends to a true rollout.
        noise_scale: largest scale of the perturbation, drawn uniformly from [0, noise_scale] for each image: of the
            states for `pra` and `low_dim`, of the input pixels for `noisy_inputs`.
        head_repeats: noise levels drawn for each token in the flow loss; `diffusion` has one for each image.
        jump_repeats: jumps drawn for each token where the head learns mean velocities (`head_jumps`).
        class_dropout: probability that an image is shown without its class, for guidance.
        detach_inputs: no gradient flows from the generation loss into the decoded inputs.
        flow_weight: weight of the flow loss, that of the jumps included.
        reconstruction_weight: weight of the L1 reconstruction loss.
        kl_weight: weight of the states' KL divergence.
        perceptual_weight: weight of the perceptual distance of decoded images; needs a network (see PRAModule).
    """

    rollout_passes: int = 1
    noise_scale: float = 0.2
    head_repeats: int = 4
    jump_repeats: int = 2
    class_dropout: float = 0.1
    detach_inputs: bool = True
    flow_weight: float = 1.0
    reconstruction_weight: float = 4.0
    kl_weight: float = 0.001
    perceptual_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.rollout_passes < 0:
            raise ConfigError(f"rollout_passes {self.rollout_passes}", hint="use 0 (teacher forcing) or more")
        if self.noise_scale < 0:
            raise ConfigError(f"noise_scale {self.noise_scale}", hint="use 0 or more")
        if self.head_repeats < 1:
            raise ConfigError(f"head_repeats {self.head_repeats}", hint="use 1 or more")
        if self.jump_repeats < 1:
            raise ConfigError(f"jump_repeats {self.jump_repeats}", hint="use 1 or more; head_jumps false learns none")
        if not 0 <= self.class_dropout < 1:
            raise ConfigError(f"class_dropout {self.class_dropout}", hint="use a probability in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainingNoise:
    """All the randomness of a training step, so that the loss is a function of its arguments alone.

    Attributes:
        drop_class: images that are shown without their class.
        posterior: standard normal noise of the encoder's sample; None where the head generates pixels.
        perturbation: scaled noise on the states (or on the input pixels, for `noisy_inputs`); None where unused.
        time: times of the flow, in (0, 1).
        head: the flow's starting noise.
        jumps: where the jumps start and end, and the noise that their paths start from; None for a head without.
    """

    drop_class: ClassMask
    posterior: States | None
    perturbation: Targets | None
    time: Times
    head: HeadNoise
    jumps: JumpNoise | None


def draw_training_noise(source: SampleNoise, config: PRAConfig, objective: ObjectiveConfig) -> TrainingNoise:
    """Draw a step's noise, all of it in one call; times are logit-normal (Esser et al. 2024, section 3.1).

    Args:
        source: a stream of random numbers for each image.
        config: the architecture, which says what is perturbed and how large a target is.
        objective: the scale of the perturbation, the noise levels of a token, the rate of dropped classes.
    """
    counts = num_uniform(config, objective), num_normal(config, objective)
    return noise_from(*source.uniform_and_normal(*counts), config, objective)


def num_uniform(config: PRAConfig, objective: ObjectiveConfig) -> int:
    """Uniform numbers that an image's training noise takes."""
    if not config.head_jumps:
        return 2
    return 2 + 2 * config.num_tokens * objective.jump_repeats


def num_normal(config: PRAConfig, objective: ObjectiveConfig) -> int:
    """Normal numbers that an image's training noise takes."""
    return sum(_normal_sizes(config, objective))


def _normal_sizes(config: PRAConfig, objective: ObjectiveConfig) -> list[int]:
    """Of posterior, perturbation, times, head and jumps."""
    tokens, repeats, target = config.num_tokens, _repeats(config, objective), config.target_size
    return [
        tokens * config.state_size if _has_states(config) else 0,
        tokens * target if _is_perturbed(config) else 0,
        1 if _is_diffused(config) else tokens * repeats,
        tokens * repeats * target,
        tokens * objective.jump_repeats * target if config.head_jumps else 0,
    ]


def _has_states(config: PRAConfig) -> bool:
    return VARIANTS[config.variant].target == "states"


def _is_perturbed(config: PRAConfig) -> bool:
    return _has_states(config) or VARIANTS[config.variant].inputs == "noisy"


def _is_diffused(config: PRAConfig) -> bool:
    return VARIANTS[config.variant].inputs == "diffused"


def _repeats(config: PRAConfig, objective: ObjectiveConfig) -> int:
    """Noise levels of a token; those of a whole image are a pass of the transformer each."""
    return 1 if _is_diffused(config) else objective.head_repeats


def noise_from(
    uniform: Float[Tensor, "batch uniform"],
    normal: Float[Tensor, "batch normal"],
    config: PRAConfig,
    objective: ObjectiveConfig,
) -> TrainingNoise:
    """A step's noise of random numbers.

    Args:
        uniform: `num_uniform` numbers in [0, 1) of each image.
        normal: `num_normal` standard normal numbers of each image.
        config: the architecture.
        objective: what is minimised.
    """
    tokens, repeats, target = config.num_tokens, _repeats(config, objective), config.target_size
    parts: tuple[Tensor, ...] = torch.split(normal, _normal_sizes(config, objective), dim=1)
    posterior, perturbation, time, head, jumps = parts
    scale = objective.noise_scale * uniform[:, 1, None, None]
    return TrainingNoise(
        drop_class=uniform[:, 0] < objective.class_dropout,
        posterior=posterior.view(-1, tokens, config.state_size) if _has_states(config) else None,
        perturbation=scale * perturbation.view(-1, tokens, target) if _is_perturbed(config) else None,
        time=time.sigmoid().view(-1, 1 if _is_diffused(config) else tokens, repeats).expand(-1, tokens, -1),
        head=head.view(-1, tokens, repeats, target),
        jumps=jump_noise(uniform[:, 2:], jumps, tokens) if config.head_jumps else None,
    )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What the transformer makes of its training inputs.

    Attributes:
        inputs: pixel tokens that the transformer saw.
        hidden: its hidden states on them.
        decoded: pixel tokens decoded from the perturbed states, once for each context that they were decoded in;
            empty where the head generates pixels.
    """

    inputs: PixelTokens
    hidden: Hidden
    decoded: tuple[PixelTokens, ...]


def parallel_rollout(
    model: PRA, tokens: PixelTokens, labels: Labels, states: States, *, passes: int, detach_inputs: bool = True
) -> Rollout:
    """Stand for sequential rollouts in parallel: decode all states in the context of the pass before, K times.

    x^0 = the clean tokens, h^k = transformer(x^k), x^(k+1)_i = decode(z_i, h^k_i) at all positions at once. One Jacobi
    iteration a pass: after K passes the first K tokens equal those of a true rollout that generates these states (ours;
    K = 1 is arXiv 2606.27978).

    Args:
        model: one whose head generates states.
        tokens: the clean pixel tokens, the inputs of the first pass.
        labels: classes, with the null class among them.
        states: the perturbed intermediate states z.
        passes: K >= 0; 0 is teacher forcing.
        detach_inputs: no gradient flows back through the decoded inputs.
    """
    decoded: list[PixelTokens] = []
    inputs = tokens
    hidden = model.transformer(inputs, labels)
    for _ in range(passes):
        decoded.append(model.decode(states, hidden))
        inputs = decoded[-1].detach() if detach_inputs else decoded[-1]
        hidden = model.transformer(inputs, labels)
    decoded.append(model.decode(states, hidden))
    return Rollout(inputs=inputs, hidden=hidden, decoded=tuple(decoded))


@dataclass(frozen=True, kw_only=True)
class GenerationPass:
    """What the flow loss is computed from.

    Attributes:
        rollout: the transformer's inputs and hidden states.
        targets: what the head is to generate: states, not perturbed, or pixel tokens.
        kl: divergence of the states from a standard normal, a mean in nats per token; zero where there are none.
    """

    rollout: Rollout
    targets: Targets
    kl: Scalar


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Losses of a batch, each a mean.

    Attributes:
        total: the weighted sum that is minimised.
        flow: squared error of the velocity, per value.
        jump: squared error of the mean velocity, per value; zero for a head without jumps.
        reconstruction: absolute error of decoded pixels in [-1, 1], per value; zero where the head generates pixels.
        kl: divergence of the states from a standard normal, in nats per token; zero where there is none.
        perceptual: distance of decoded images in a network's features; zero where there is none.
    """

    total: Scalar
    flow: Scalar
    jump: Scalar
    reconstruction: Scalar
    kl: Scalar
    perceptual: Scalar


def flow_errors(model: PRA, targets: Targets, hidden: Hidden, noise: TrainingNoise) -> TokenErrors:
    """Squared error of the head's velocity against `target - noise`, a mean over values and noise levels.

    |v(x_t, t, h) - (target - noise)|^2 at x_t = (1 - t) noise + t target (Liu et al. 2023, equation 1). The targets
    carry no gradient: else the states would collapse to what is easy to predict (ours).

    Args:
        model: its head is measured.
        targets: what the head is to generate.
        hidden: the context of each target.
        noise: times and starting points of the flow.
    """
    target = targets.detach()[:, :, None]
    point = interpolate(noise.head, target, noise.time)
    velocity = model.head(point, noise.time, hidden[:, :, None])
    error = velocity.float() - (target - noise.head)
    return model.head.weigh_error(error, noise.time).square().mean((-1, -2))


def denoising_errors(model: PixelDiffusion, tokens: PixelTokens, labels: Labels, noise: TrainingNoise) -> TokenErrors:
    """Squared error of the velocity of whole images, a mean over a token's values: `flow_errors` of `diffusion`.

    Args:
        model: its denoiser is measured.
        tokens: the images' clean pixel tokens.
        labels: classes, with the null class among them.
        noise: one time of each image, and the starting point of its flow.
    """
    start, time = noise.head[:, :, 0], noise.time[:, :, 0]
    velocity = model.velocity(interpolate(start, tokens, time), time[:, 0], labels)
    return bounded_error(velocity - (tokens - start), time).square().mean(-1)


def generation_pass(
    model: PRA, tokens: PixelTokens, labels: Labels, objective: ObjectiveConfig, noise: TrainingNoise
) -> GenerationPass:
    """The variant's training inputs through the transformer, and the targets of the head (arXiv 2606.27978).

    Args:
        model: its variant says which inputs the transformer gets.
        tokens: the images' clean pixel tokens.
        labels: classes, with the null class among them.
        objective: how many passes, and whether gradients flow through them.
        noise: what is added to the states or to the pixels.
    """
    inputs_kind = VARIANTS[model.config.variant].inputs
    if model.encoder is None or noise.posterior is None:
        inputs = tokens + noise.perturbation if noise.perturbation is not None else tokens
        rollout = Rollout(inputs=inputs, hidden=model.transformer(inputs, labels), decoded=())
        return GenerationPass(rollout=rollout, targets=tokens, kl=tokens.new_zeros(()))
    posterior = model.encode(tokens)
    states = posterior.sample(noise.posterior)
    perturbed = states if noise.perturbation is None else states + noise.perturbation
    passes = objective.rollout_passes if inputs_kind == "decoded" else 0
    rollout = parallel_rollout(model, tokens, labels, perturbed, passes=passes, detach_inputs=objective.detach_inputs)
    return GenerationPass(rollout=rollout, targets=states, kl=posterior.kl().mean())


def training_losses(
    model: ImageGenerator,
    images: Images,
    labels: Labels,
    objective: ObjectiveConfig,
    noise: TrainingNoise,
    perceptual: Perceptual | None = None,
) -> Losses:
    """All losses of a batch: total = the sum of weight * loss. Reconstructions of all passes count alike (ours).

    Args:
        model: what is trained.
        images: in [-1, 1].
        labels: their classes, 0 to `num_classes - 1`; those that `noise` drops become the null class.
        objective: weights of the losses, and how the inputs are made.
        noise: the step's random numbers.
        perceptual: distance of the last pass's images to the real ones; None where it has no weight.
    """
    config = model.config
    tokens = patchify(images, config.patch_size)
    labels = torch.where(noise.drop_class, config.num_classes, labels)
    if isinstance(model, PixelDiffusion):
        flow, none = denoising_errors(model, tokens, labels, noise).mean(), tokens.new_zeros(())
        total = objective.flow_weight * flow
        return Losses(total=total, flow=flow, jump=none, reconstruction=none, kl=none, perceptual=none)
    assert isinstance(model, PRA)
    made = generation_pass(model, tokens, labels, objective, noise)
    flow = flow_errors(model, made.targets, made.rollout.hidden, noise).mean()
    jump = reconstruction = distance = tokens.new_zeros(())
    if noise.jumps is not None:
        jump = jump_errors(model.head, made.targets, made.rollout.hidden, noise.jumps).mean()
    if decoded := made.rollout.decoded:
        reconstruction = torch.stack([F.l1_loss(d.float(), tokens) for d in decoded]).mean()
        if perceptual is not None:
            distance = perceptual(unpatchify(decoded[-1].float(), config.patch_size, config.channels), images)
    total = (
        objective.flow_weight * (flow + jump)
        + objective.reconstruction_weight * reconstruction
        + objective.kl_weight * made.kl
        + objective.perceptual_weight * distance
    )
    return Losses(total=total, flow=flow, jump=jump, reconstruction=reconstruction, kl=made.kl, perceptual=distance)


def losses_of_seeds(
    model: ImageGenerator,
    images: Images,
    labels: Labels,
    seeds: Seeds,
    objective: ObjectiveConfig,
    perceptual: Perceptual | None = None,
) -> Losses:
    """`training_losses` with the noise of seeds: all that is computed of a batch, as one graph for torch.compile.

    Args:
        model: what is trained.
        images: in [-1, 1].
        labels: their classes.
        seeds: of each image's noise, on the device of the images.
        objective: weights of the losses, and how the inputs are made.
        perceptual: as `training_losses` takes it.
    """
    noise = draw_training_noise(SampleNoise(seeds, images.device), model.config, objective)
    return training_losses(model, images, labels, objective, noise, perceptual)
