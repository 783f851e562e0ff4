"""The commands: the general ones, and what the methods add; a command's module is imported when it is asked for."""

from collections.abc import Mapping, Sequence

from framework.core.errors import ConfigError
from framework.core.method import Command, Method, load_methods
from framework.methods import METHODS

RECIPES = {
    "fit": "train from a recipe, or go on with a run",
    "validate": "losses of a run's newest checkpoint on the validation set",
    "plan": "memory, operations and communication of a recipe on given devices, before anything is started",
    "where": "the folder of a recipe's run and what W&B gets of it; refuses settings that fit would refuse",
}
"""Those that read recipes, by their lines of help; `cli.train` runs them."""
GENERAL = {
    "export": Command(
        help="a checkpoint's weights as safetensors, for sampling, sharing or a new run",
        function="framework.cli.export:export",
    ),
    "runs": Command(
        help="the runs in a folder: ls, show, sync (sends W&B's offline files)",
        function={name: f"framework.cli.runs:{name}" for name in ("ls", "show", "sync")},
    ),
    "report": Command(
        help="one HTML page of a run: curves, samples, speed, restarts, recipe", function="framework.cli.report:report"
    ),
    "shards": Command(
        help="make, index, check and show shards: images, imagenet, jsonl, hf, ...",
        function={
            name: f"framework.cli.shards:{name}"
            for name in ("images", "imagenet", "jsonl", "hf", "digits", "index", "check", "stats", "peek", "source")
        },
    ),
    "bench": Command(
        help="speed of start, loader, training and attribution against bare ones; blame and repair of planted faults",
        function={
            "startup": "framework.bench.startup:bench_startup",
            "busy": "framework.bench.busy_machine:bench_busy",
            "distances": "framework.bench.distances:bench_distances",
            "scale": "framework.bench.scale:bench_scale",
            "sampling": "framework.bench.generation.sampling:bench_sampling",
            "step": "framework.bench.generation.training_step:bench_step",
            "data": "framework.bench.data:bench_data",
            "training": "framework.bench.training.loop:bench_training",
            "attribution": "framework.bench.attribution:bench_attribution",
            "episodes": "framework.bench.episodes:bench_episodes",
            "blame": "framework.bench.fault_localization:bench_fault_localization",
            "repair": "framework.bench.prompt_repair:bench_repair",
        },
    ),
}
"""Those that any method has."""


def methods() -> tuple[Method, ...]:
    """The methods of the table and of other distributions."""
    return load_methods(METHODS)


def commands(known: Sequence[Method]) -> dict[str, Command]:
    """Every command that is a function or a group of them, by name; groups with what the methods add to them.

    Raises:
        ConfigError: two commands of one name, or an addition to what is not a group.
    """
    found = dict(GENERAL)
    for method in known:
        for name, command in method.commands.items():
            if name in found or name in RECIPES:
                raise ConfigError(f"method {method.name} has a second command {name!r}", hint="give it another name")
            found[name] = command
        for group, added in method.subcommands.items():
            there = found[group].function if group in found else None
            if not isinstance(there, Mapping) or there.keys() & added.keys():
                problem = f"method {method.name} adds {', '.join(added)} to {group!r}"
                raise ConfigError(problem, hint="add commands of new names to a general group such as shards")
            found[group] = Command(help=found[group].help, function={**there, **added})
    return found


def listing(known: Sequence[Method]) -> str:
    """The commands with their lines of help: the general ones, then those of each method."""
    groups = {"": {**RECIPES, **{name: command.help for name, command in GENERAL.items()}}}
    for method in known:
        if method.commands:
            added = {name: command.help for name, command in method.commands.items()}
            groups[f"{method.name}: {method.description}"] = added
    width = max(len(name) for group in groups.values() for name in group) + 2
    lines = []
    for heading, group in groups.items():
        lines += ["", heading] if heading else []
        lines += [f"  {name:<{width}}{text}" for name, text in group.items()]
    return "\n".join(lines)
