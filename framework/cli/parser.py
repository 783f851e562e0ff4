"""Parsers of command lines whose errors are one line."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from inspect import isabstract, signature
from typing import Any, NoReturn, cast

from jsonargparse import ArgumentParser, Namespace

import framework.core.settings.texts  # noqa: F401 - sets how texts are read
from framework.core.console import visible
from framework.core.moved.recipe_keys import explain_moved_key
from framework.core.settings.mistakes import Given, describe_mistake
from framework.tracking.paths import expand_paths

GIVEN: ContextVar[Given] = ContextVar("GIVEN", default=Given())  # noqa: B039 - frozen
"""What the command that runs was given. The parsers of classes, which find most mistakes, know nothing of it."""


def given_to(command: str, function: Callable[..., object], words: Sequence[str]) -> Given:
    """What a command that is a function was given, and the classes that its arguments may be.

    Args:
        command: its name.
        function: that it calls.
        words: behind its name.
    """
    kinds = [each.annotation for each in signature(function).parameters.values() if isabstract(each.annotation)]
    return Given(
        command=command,
        words=tuple(words),
        classes=tuple(sorted(each.__name__ for kind in kinds for each in kind.__subclasses__())),
    )


class OneLineParser(ArgumentParser):
    """A parser whose errors are one line and whose yes-or-no options need no value: `--strict` is `--strict true`.

    Options are written out: one that is a part of another's name is a mistake. Settings may begin with `~` or `$NAME/`:
    what is made of them sees the expanded path, and a recipe that is saved keeps what was written, for another home or
    another machine.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def add_argument(self, *args: str, **kwargs: Any) -> Any:
        if kwargs.get("type") is bool:
            kwargs |= {"nargs": "?", "const": True}
        if args and args[0].startswith("--trainer."):
            # Here, not in the parser of recipes: jsonargparse takes over a single override for its groups.
            kwargs["help"] = _help_of_trainer(args[0].removeprefix("--trainer."), kwargs.get("help"))
        return super().add_argument(*args, **kwargs)

    def instantiate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> Namespace:
        """What the settings make, with every path expanded: the one place where that happens.

        Args:
            namespace: the settings.
            *args: as jsonargparse has them.
            **kwargs: as jsonargparse has them.
        """
        return super().instantiate(cast(Namespace, expand_paths(namespace)), *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        given = GIVEN.get()
        told = explain_moved_key(message) or describe_mistake(message, settings_of(parser), given)
        # A parser of a class's arguments has the name of the script.
        program = f"framework {given.command}" if given.command else parser.prog.replace(" [options]", "")
        self.exit(2, f"error: {visible(told)} (see: {program} --help)\n")


def _help_of_trainer(name: str, otherwise: str | None) -> str | None:
    """What an option of the trainer does here; `otherwise` for one that we say nothing of."""
    from framework.training.trainer_options import TRAINER_OPTIONS, described

    return described(TRAINER_OPTIONS[name]) if name in TRAINER_OPTIONS else otherwise


def settings_of(parser: ArgumentParser) -> dict[str, object]:
    """A parser's settings, dotted, with their defaults."""
    return {key: value for key, value in parser.get_defaults(skip_validation=True).items() if key != "config"}
