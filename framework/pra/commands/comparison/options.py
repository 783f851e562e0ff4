"""What the options of a comparison change in its recipe, so that what it reads there itself is what is trained."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import Any

from framework.core.errors import ConfigError
from framework.core.text_files import parse_yaml

_OF_A_PART = (
    "run.dir",
    "seed_everything",
    "model.init_args.seed",
    "model.init_args.architecture.variant",
    "data.images.size",
)
"""Settings that every part has its own of."""
_READ = (
    "model.init_args.architecture",
    "model.init_args.optimizer.schedule",
    "data.train",
    "data.validation",
    "trainer.max_steps",
    "trainer.max_epochs",
)
"""Settings that the comparison itself reads in the recipe."""
_OF_TRAINING_STEPS = ("trainer.max_steps", "checkpoint.every_n_steps", "checkpoint.keep_every_n_steps")
"""Settings that follow from `training_steps`."""


def check_options(options: Sequence[str], training_steps: Sequence[int]) -> None:
    """Whether options are settings that can be the same for all parts.

    Args:
        options: words of `framework fit`.
        training_steps: after which parts are measured.

    Raises:
        ConfigError: a recipe, what differs between parts or follows from `training_steps`, or two words in one.
    """
    for word in options:
        name = word.partition("=")[0]
        if name.startswith("--") and any(map(str.isspace, name)):
            hint = "give them as two, such as '[--trainer.max_steps, \"2000\"]'"
            raise ConfigError(f"an option and its value are one word in options: {word!r}", hint=hint)
        if name in ("-c", "--config"):
            raise ConfigError(f"{name} among the options", hint="give one recipe that says all")
    for name, _ in _given(options):
        if name in _OF_A_PART:
            problem = f"--{name} among the options"
            raise ConfigError(problem, hint="leave it out: rows, sizes, seeds and folders are those of the parts")
        if training_steps and name in _OF_TRAINING_STEPS:
            problem = f"training_steps {list(training_steps)} and --{name} among the options"
            hint = "leave out the option: parts are trained to the largest of training_steps, with a checkpoint at each"
            raise ConfigError(problem, hint=hint)


def with_options(settings: dict[str, Any], options: Sequence[str]) -> dict[str, Any]:
    """A recipe's settings with those of options in the place of what the comparison reads there.

    Args:
        settings: of the recipe.
        options: words of `framework fit`.

    Raises:
        ConfigError: an option that gives a whole group of such settings, or a value that is not YAML.
    """
    changed = deepcopy(settings)
    for name, text in _given(options):
        if not any(_is_in(name, each) or _is_in(each, name) for each in _READ):
            continue
        *groups, last = name.split(".")
        group = changed
        for each in groups:
            group = group.setdefault(each, {})
        value = parse_yaml(text, f"--{name}")
        if isinstance(value, dict) or isinstance(group.get(last), dict):
            problem = f"--{name} among the options is a group of settings"
            raise ConfigError(problem, hint=f"give its settings by name, such as --{name}.NAME")
        group[last] = value
    return changed


def _is_in(name: str, group: str) -> bool:
    return f"{name}.".startswith(f"{group}.")


def _given(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names, with `init_args` in them, and values of options; what is added to a list is left out."""
    for word, following in pairwise([*options, ""]):
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not name.endswith("+"):
            first, _, rest = name.partition(".")
            if first == "model" and rest and not rest.startswith(("init_args.", "class_path")):
                name = f"model.init_args.{rest}"
            yield name, value if equals else following
