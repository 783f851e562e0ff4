"""Options of attribution: what is differentiated, how tokens are reduced to edge weights, edits and walks."""

from dataclasses import dataclass
from typing import Literal, get_args

from framework.core.errors import ConfigError

Scalar = Literal["sum_squares", "sequence_log_prob", "product_probs", "finegrained", "sketched"]
Score = Literal["l1", "squared_l2", "gradient_input"]
Reduction = Literal["mean", "max", "sum"]


@dataclass(frozen=True, kw_only=True)
class GradientOptions:
    """What is differentiated, and with how much memory.

    Args:
        scalar: of the generated tokens y with logits z and probabilities p: `sum_squares`, Σ z(y)²;
            `sequence_log_prob`, Σ log p(y) (ours: stable); `product_probs`, Π p(y); `finegrained`, log p(y) of each
            token by itself: a gradient for every output token; `sketched` (ours), an estimate of that by a few
            gradients: neighbouring output tokens are taken together with random signs.
        max_tokens: most tokens in one pass, cached prompts and padding included; fewer where the memory that is free
            asks for it. A single longer row is passed alone.
        checkpointing: keep only the layers' inputs and run the layers again in the backward pass.
        sketch_passes: of `sketched`: gradients of an answer; one of fewer tokens is as by `finegrained`.
        sketch_seed: of its signs, with the task's id and the step's name.
        gradients_at_once: of `finegrained` and `sketched`: most gradients of an answer that are taken together, as far
            as the memory goes; 1 takes least. By default up to 16 while they keep the pass within `max_tokens`, and 1
            on a CPU, where more are slower.
    """

    scalar: Scalar = "sketched"
    max_tokens: int = 16384
    checkpointing: bool = False
    sketch_passes: int = 8
    sketch_seed: int = 0
    gradients_at_once: int | None = None

    def __post_init__(self) -> None:
        if self.scalar not in get_args(Scalar):
            raise ConfigError(f"scalar {self.scalar!r}", hint=f"use one of {', '.join(get_args(Scalar))}")
        if self.sketch_passes < 1:
            raise ConfigError(f"sketch_passes {self.sketch_passes}", hint="use 1 or more")
        if self.max_tokens < 1 or (self.gradients_at_once is not None and self.gradients_at_once < 1):
            problem = f"max_tokens {self.max_tokens}, gradients_at_once {self.gradients_at_once}"
            raise ConfigError(problem, hint="use 1 or more")


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """Which connection weights.

    Args:
        gradients: what is differentiated, and with how much memory.
        score: of a token: `l1`, the norm of the gradient; `squared_l2` (ours), its squared Euclidean norm, of which
            `sketched` has no bias; `gradient_input`, the magnitude of gradient · embedding.
        reduction: of a block's tokens to its weight: `mean` and `max` of magnitudes; `sum` (ours), the magnitude of the
            sum with signs, in which evidence for and against cancels.
        prompts: whether the prompt is an input with credit of its own (ours): without it no agent is at fault, only
            users. It gets gradients then, and only the template before it is cached.
        code: whether a tool's own code is an input with credit of its own (ours): an error may begin there.
        estimate_seed: of estimators that ask a model again; that of the run.
    """

    gradients: GradientOptions = GradientOptions()
    score: Score = "l1"
    reduction: Reduction = "mean"
    prompts: bool = True
    code: bool = False
    estimate_seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("score", get_args(Score)), ("reduction", get_args(Reduction))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} {getattr(self, name)!r}", hint=f"use one of {', '.join(choices)}")


@dataclass(frozen=True, kw_only=True)
class CounterfactualEditOptions:
    """How counterfactual edits are looked for.

    Args:
        alternatives: tokens that could stand in each place of a message: those that its author held likeliest.
        keep: how much a right token that an edit breaks counts against a wrong one that it corrects; 0 saves a pass.
        max_edits: edits of one answer's input.
        max_targets: wrong tokens of an answer, those with the most credit.
        max_tokens: most tokens in one pass, cached prompts and padding included.
    """

    alternatives: int = 16
    keep: float = 0.3
    max_edits: int = 4
    max_targets: int = 16
    max_tokens: int = 4096

    def __post_init__(self) -> None:
        for name in ("alternatives", "max_edits", "max_targets", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}", hint="use 1 or more")
        if self.keep < 0:
            raise ConfigError(f"keep {self.keep}", hint="use 0 or more")


@dataclass(frozen=True, kw_only=True)
class AttributionOptions:
    """How attribution is done.

    Args:
        connections: which connection weights, where there are no edits.
        edits: connections by counterfactual edits (ours), for losses that know which places are wrong; None for
            gradients alone.
        top_m: of the walk: connections kept into every output.
        seed: of the walk: ties are broken at random, with the task's id.
        max_trajectories: most trajectories that are listed.
    """

    connections: ConnectionOptions = ConnectionOptions()
    edits: CounterfactualEditOptions | None = CounterfactualEditOptions()
    top_m: int = 1
    seed: int = 0
    max_trajectories: int = 1000

    def __post_init__(self) -> None:
        if self.top_m < 1 or self.max_trajectories < 1:
            raise ConfigError(f"top_m {self.top_m}, max_trajectories {self.max_trajectories}", hint="use 1 or more")
