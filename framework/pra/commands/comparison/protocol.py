"""How the parts of a comparison are trained and measured, and what two of them differ in."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import cast

from framework.core.errors import ConfigError
from framework.core.serialization import JsonDict, to_json
from framework.core.settings.fit_command import as_words
from framework.pra.commands.comparison.options import check_options
from framework.pra.sampling import SamplerConfig

MOST_CHECKPOINTS = 100
"""That a part keeps on its way: one at each multiple of what its steps have in common."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How every part is trained and measured.

    Attributes:
        recipe: of the training, with its digest.
        recipe_sha256: of that file.
        options: further ones of `framework fit`.
        features: what the distances are measured in, in words.
        guidance: scales to sample at, besides 1.
        num: samples of each scale.
        steps: of the sampler.
        svm_accuracy: also measured.
        training_steps: after which every part is measured, in rising order; none for the recipe's last step.
        classifier_sha256: of the recipe of the network that measures, where it is trained here.
        weights_sha256: of that network where it is given.
        recipe_steps: after which the recipe's training ends, if it says so.
    """

    recipe: str
    recipe_sha256: str
    options: tuple[str, ...]
    features: str
    guidance: tuple[float, ...]
    num: int
    steps: int
    svm_accuracy: bool
    training_steps: tuple[int, ...] = ()
    classifier_sha256: str | None = None
    weights_sha256: str | None = None
    recipe_steps: int | None = None

    def __post_init__(self) -> None:
        if self.num < 2:
            raise ConfigError(f"num {self.num}", hint="give 2 samples or more")
        if self.training_steps != tuple(sorted(set(self.training_steps))) or min(self.training_steps, default=1) < 1:
            problem = f"training_steps {list(self.training_steps)}"
            raise ConfigError(problem, hint="give rising numbers of steps from 1 on, such as [1000, 2000, 4000]")
        every = gcd(*self.training_steps)
        if every and self.training_steps[-1] // every > MOST_CHECKPOINTS:
            problem = f"with training_steps {list(self.training_steps)} parts keep a checkpoint each {every} steps"
            raise ConfigError(problem, hint="give multiples of a larger number, such as [1000, 2000, 4000]")
        check_options(self.options, self.training_steps)

    @property
    def training(self) -> dict[str, object]:
        """What a trained part, or a trained classifier, cannot do without being trained anew."""
        return {
            "recipe_sha256": self.recipe_sha256,
            "options": list(self.options),
            "classifier_sha256": self.classifier_sha256,
        }

    @property
    def samplers(self) -> list[SamplerConfig]:
        """One for each scale, first that without guidance. Raises ConfigError."""
        return [SamplerConfig(steps=self.steps, guidance=scale) for scale in sorted({1.0, *self.guidance})]

    @property
    def settings(self) -> JsonDict:
        """What a result depends on besides the part and how long that was trained."""
        others = ("recipe", "recipe_steps", "training_steps")
        return {name: value for name, value in to_json(self).items() if name not in others}

    @property
    def moments(self) -> tuple[int | None, ...]:
        """When a part is measured: after so many steps, or at the end of the recipe (None)."""
        return self.training_steps or (None,)

    @property
    def training_options(self) -> list[str]:
        """Of `framework fit`, with a checkpoint that stays at each of `training_steps`."""
        if not self.training_steps:
            return [*self.options]
        every = gcd(*self.training_steps)
        steps = {
            "trainer.max_steps": self.training_steps[-1],
            "checkpoint.every_n_steps": every,
            "checkpoint.keep_every_n_steps": every,
        }
        return [*self.options, *as_words(steps)]


def differences(made: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Names of the settings that something was not made with; one that older files do not tell is not among them.

    Nor is the path of a classifier's recipe whose content is the same, nor the order of the scales of guidance.

    Args:
        made: the settings that it was made with.
        wanted: those that are asked for.
    """
    digest = wanted.get("classifier_sha256")
    same = {"features"} if digest is not None and made.get("classifier_sha256") == digest else set[str]()
    pairs = {name: (made.get(name, value), value) for name, value in wanted.items() if name not in same}
    return [name for name, (one, other) in pairs.items() if _plain(name, one) != _plain(name, other)]


def _plain(name: str, value: object) -> object:
    """A setting's value; of the scales of guidance, of which 1 is always one, without their order."""
    return {1.0, *cast("list[float]", value)} if name == "guidance" else value
