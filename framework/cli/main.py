"""The command `framework`."""

import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from framework import __version__
from framework.cli.registry import RECIPES, commands, listing, methods
from framework.cli.termination import Terminated, terminable
from framework.core.console import console, escape_unencodable, visible
from framework.core.errors import ConfigError, FrameworkError, Interrupted
from framework.core.imports import import_object
from framework.tracking.secrets import scrubbed_text

USAGE = "usage: framework COMMAND [options]\n\n{}\n\n'framework COMMAND --help' explains a command's options."


def _fixable(error: BaseException | None) -> tuple[str | None, int]:
    """Message and exit code of what a user can fix; (None, 1) for a bug."""
    # Where Lightning was not imported, it has raised nothing.
    lightning = sys.modules.get("lightning.pytorch.utilities.exceptions")
    if lightning is not None and isinstance(error, lightning.MisconfigurationException):
        return str(error), 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"{visible(str(error.filename))}: {error.strerror}", 2
    # The parser wraps what constructors raise.
    while error is not None and not isinstance(error, FrameworkError):
        error = error.__cause__ or error.__context__
    return (None, 1) if error is None else (str(error), error.exit_code)


def _quiet() -> None:
    """Shows the framework's messages, and silences what a user of this command can do nothing about."""
    for message in (
        ".*isinstance.treespec, LeafSpec.*",  # lightning 2.6 on torch 2.13
        "Found .* module.s. in eval mode at the start of training",  # the averaged weights
        ".*does not have many workers.*",  # set by data.loading.num_workers
        ".*sync_dist=True.. when logging on epoch level",  # every process validates on all samples
        "FSDP2-wrapped module .* returned a view tensor",  # nothing is done to it in place
        ".*distributed.nn.functional.all_gather is deprecated",  # lightning 2.6 on torch 2.13
    ):
        warnings.filterwarnings("ignore", message=message)
    # Of Hugging Face's libraries, which are not imported yet: bars for weights that load in a moment.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    ours = logging.getLogger("framework")
    if not any(isinstance(handler, ConsoleHandler) for handler in ours.handlers):
        ours.addHandler(ConsoleHandler())
        ours.setLevel(logging.INFO)
    # Of what is loaded our own line tells; Lightning's is also there when there was nothing.
    unwanted = ("litlogger", "Restoring states from", "Restored all states from", "Detected KeyboardInterrupt")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(words in record.getMessage() for words in unwanted)
    )


class ConsoleHandler(logging.Handler):
    """The framework's own messages, for the user to see."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        for line in scrubbed_text(record.getMessage()).split("\n"):
            console.print(line, style=style)


def _run(command: str, options: list[str]) -> None:
    # Imported when asked for: a look at runs need not wait for everything that training imports.
    from framework.cli.parser import GIVEN, Given

    try:
        if command in RECIPES:
            from framework.cli.reading import PlanCLI, WhereCLI
            from framework.cli.train import TrainingCLI

            reading = {"plan": PlanCLI, "where": WhereCLI}
            reading[command](options) if command in reading else TrainingCLI([command, *options])
        else:
            _call_function(command, options)
    finally:
        GIVEN.set(Given())


def _call_function(command: str, options: list[str]) -> None:
    """A command that is a function, or one of a group of them."""
    known = commands(methods())
    if command not in known:
        raise _unknown(f"unknown command {command!r}", command, [*RECIPES, *known])
    from jsonargparse import auto_cli

    from framework.cli.parser import GIVEN, OneLineParser, given_to

    paths, asks = known[command].function, {"-h", "--help"}.intersection(options[:1])
    if isinstance(paths, str):
        functions: dict[str, Any] = {command: import_object(paths)}
        GIVEN.set(given_to(command, functions[command], options))
    elif asks:
        functions = {command: {name: import_object(path) for name, path in paths.items()}}
    elif not options:
        raise ConfigError(f"{command} is a group of commands", hint=f"use {command} with one of {', '.join(paths)}")
    elif options[0] not in paths:
        raise _unknown(f"{command} has no command {options[0]!r}", options[0], list(paths))
    else:
        functions = {command: {options[0]: import_object(paths[options[0]])}}
        GIVEN.set(given_to(f"{command} {options[0]}", functions[command][options[0]], options[1:]))
    auto_cli(functions, args=[command, *options], prog="framework", parser_class=OneLineParser)


def _unknown(problem: str, name: str, known: Sequence[str]) -> ConfigError:
    near = get_close_matches(name, known, n=1)
    return ConfigError(problem, hint=f"did you mean {near[0]}?" if near else f"use one of {', '.join(known)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exit code 2 and a line for what the user can fix, 130 for Ctrl-C, 143 for SIGTERM."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    escape_unencodable()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(listing(methods())))
        return
    if arguments[0] == "--version":
        print(f"framework {__version__}")
        return
    command, *options = arguments
    _quiet()
    try:
        with terminable():
            _run(command, options)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        told = _told(command, error)
        if told is None:
            raise
        console.print(told.text, style=told.style)
        if told.code in (Interrupted.exit_code, Terminated.exit_code):
            # Once more, while the interpreter ends: silently.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        # Where training was not imported, there are no others to wait for.
        if (shutdown := sys.modules.get("framework.training.shutdown")) is not None:
            shutdown.leave_others(told.code)
        sys.exit(told.code)


@dataclass(frozen=True, kw_only=True)
class _Told:
    """A command's end in one line.

    Attributes:
        text: the line.
        style: its colour.
        code: exit code.
    """

    text: str
    style: str
    code: int


def _told(command: str, error: BaseException) -> _Told | None:
    """How a command has ended, unless by a bug or an exit that was meant."""
    interrupt = _interrupt_behind(error)
    if isinstance(interrupt, Terminated):
        return _Told(text=f"framework {command}: stopped by SIGTERM", style="yellow", code=Terminated.exit_code)
    if interrupt is not None:
        return _Told(text=f"framework {command}: interrupted", style="yellow", code=Interrupted.exit_code)
    if isinstance(error, SystemExit):
        return None
    message, code = _fixable(error)
    if message is None:
        return None
    text = scrubbed_text(re.sub(r"\s*\n\s*", " ", message.strip()))
    if code == Interrupted.exit_code:
        return _Told(text=text, style="yellow", code=code)
    return _Told(text=f"error: {text}", style="red", code=code)


def _interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that has led to an error: Lightning makes an exit of it, or its clean-up fails half-way through."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        # A FrameworkError was raised in full view of what came before it.
        behind = None if isinstance(behind, FrameworkError) else behind.__cause__ or behind.__context__
    return behind


if __name__ == "__main__":
    main()
