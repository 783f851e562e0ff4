"""A team of agents and one agent alone, trained alike and measured before and after, piece by piece (ours).

The baseline of Yang et al. 2026: one agent, with as many trained parameters (its adapter's rank and its soft prompt are
as many times larger as the team has agents) and as many steps on the same turns.
"""

import hashlib
import json
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Literal

from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

from framework.core.console import tracked
from framework.core.errors import ConfigError, Preempted, TrainingError
from framework.core.io import atomic_write, locked_file
from framework.core.serialization import JsonDict, parse_object, to_json
from framework.core.settings.fit_command import fit_command
from framework.data.convert.jsonl import write_jsonl_shards
from framework.data.shards.writer import WriteOptions
from framework.gbc.environments.multiwoz.dataset.mentions import MentionReader
from framework.gbc.environments.multiwoz.state_tracking.answers import draw_answer_tasks
from framework.gbc.environments.multiwoz.state_tracking.comparison_inputs import (
    SYSTEMS,
    Data,
    Setup,
    Sizes,
    SystemName,
)
from framework.gbc.environments.multiwoz.state_tracking.evaluation import (
    as_json,
    evaluate,
    read_said,
    scores,
)
from framework.gbc.environments.multiwoz.success import Judge
from framework.gbc.environments.multiwoz.system import DatabaseTool
from framework.gbc.execution.loading import load_models
from framework.gbc.graph.spec import load_graph
from framework.gbc.graph.yaml_config import read_yaml, to_yaml
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.language_models.lora import AdapterConfig
from framework.gbc.training.best import ADAPTERS, BEST, SOFT_PROMPTS
from framework.gbc.training.parameters import SoftConfig

When = Literal["before", "after"]
WHENS: tuple[When, ...] = ("before", "after")
_TARGETS = "framework.gbc.environments.multiwoz.state_tracking.answers:{}_targets"
_TOOL = f"{DatabaseTool.__module__}.{DatabaseTool.__qualname__}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and where.

    Attributes:
        folder: of everything.
        models: YAML file of the models.
        release: with the databases.
        setup: recipe and graphs.
        sizes: turns and dialogues.
        data: of these sizes.
        seed: of turns and first parameters.
        fit: further options of the training.
        deadline: by `time.monotonic`; None for none.
    """

    folder: Path
    models: str
    release: str
    setup: Setup
    sizes: Sizes
    data: Data
    seed: int
    fit: tuple[str, ...]
    deadline: float | None

    @property
    def size_ratio(self) -> int:
        """How many times the agent alone is larger: the team's agents."""
        return len(load_graph(self.setup.team).agents)

    def left(self) -> float | None:
        """Seconds until the deadline. Raises Preempted when there are none."""
        if self.deadline is None:
            return None
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise Preempted("its minutes are over", hint="call it again: it goes on where it stopped")
        return seconds

    def table(self) -> list[JsonDict]:
        """The figures of what is measured whole, a row for each system before and after.

        Raises:
            TrainingError: the systems have not as many trained parameters or steps.
        """
        rows: list[JsonDict] = []
        data, judge = self.data, Judge(self.data.database)
        for name in SYSTEMS:
            folder = self.folder / name
            trained = read_record(folder / "trained.json")
            for when in WHENS:
                said = {part: read_said(folder / f"{when}_{part}.jsonl") for part in ("held_out", "dev")}
                if len(said["held_out"]) < len(data.held_out) or len(said["dev"]) < len(data.dev):
                    continue
                row = {"system": name, "when": when, "parameters": 0, "steps": 0}
                row |= as_json(*scores(data.held_out, said["held_out"], judge))
                if data.dev:
                    found, _ = scores(data.dev, said["dev"], None)
                    row |= {f"dev_{key}": value for key, value in as_json(found, {}).items()}
                row |= trained if when == "after" else {}
                rows.append({**row, "seconds": read_record(folder / "seconds.json").get(when)})
        after = [row for row in rows if row["when"] == "after"]
        if len({(row["parameters"], row["steps"]) for row in after}) > 1:
            sizes = ", ".join(f"{row['system']}: {row['parameters']} parameters, {row['steps']} steps" for row in after)
            raise TrainingError(f"the systems were not trained alike ({sizes})", hint="train them into another folder")
        return rows


def read_record(path: Path) -> JsonDict:
    """A JSON object; empty where the file is missing."""
    return parse_object(path.read_bytes()) if path.exists() else {}


def _write_record(path: Path, record: Mapping[str, object]) -> None:
    with atomic_write(path) as stream:
        stream.write((json.dumps(record, indent=1) + "\n").encode())


@dataclass(frozen=True, kw_only=True)
class System:
    """One of the systems of a comparison; its folder holds graph, turns, training and what was said."""

    name: SystemName
    comparison: Comparison

    @property
    def folder(self) -> Path:
        """Of all that is the system's."""
        return self.comparison.folder / self.name

    @property
    def graph(self) -> str:
        """The YAML file of its graph."""
        return self.comparison.setup.team if self.name == "team" else self.comparison.setup.alone

    def note(self, what: str, seconds: float) -> None:
        """Adds time that a piece of work took."""
        path = self.folder / "seconds.json"
        known = read_record(path)
        _write_record(path, {**known, what: known.get(what, 0.0) + seconds})


def run_system(comparison: Comparison, name: SystemName) -> None:
    """Measures a system, trains it, and measures it again, or goes on with what is left of that.

    Raises:
        ConfigError: its folder was begun with other settings.
        DataError: another process works on it.
        Preempted: the deadline has passed.
        TrainingError: the training failed.
    """
    system = System(name=name, comparison=comparison)
    system.folder.mkdir(parents=True, exist_ok=True)
    with locked_file(system.folder / "lock"):
        prepare(system)
        measure(system, "before")
        train(system)
        measure(system, "after")


def prepare(system: System) -> None:
    """Writes what the system is trained with, unless it is there.

    Raises:
        ConfigError: the folder was begun with other settings or data, or a recipe as of `soft_sizes`.
    """
    comparison, folder = system.comparison, system.folder
    soft_sizes(comparison.setup.recipe)
    data = to_json([comparison.data.train, comparison.data.held_out, comparison.data.dev])
    settings = {
        "graph": read_yaml(system.graph),
        "size_ratio": comparison.size_ratio,
        "models": read_yaml(comparison.models),
        "recipe": Path(comparison.setup.recipe).read_text(encoding="utf-8"),
        "fit": list(comparison.fit),
        "num_turns": comparison.sizes.num_turns,
        "seed": comparison.seed,
        "held_out": [each.id for each in comparison.data.held_out],
        "dev": [each.id for each in comparison.data.dev],
        "dialogues": hashlib.sha256(json.dumps(data).encode()).hexdigest(),
    }
    before = read_record(folder / "settings.json")
    # Older folders do not have all.
    differs = [key for key in settings if key in before and before[key] != settings[key]]
    if differs:
        problem = f"{folder} was begun with other settings ({', '.join(differs)})"
        raise ConfigError(problem, hint="give these, or another folder")
    if not before:
        _write_inputs(system)
        _write_record(folder / "settings.json", settings)


def _write_inputs(system: System) -> None:
    """The graph with the release of its database, and the turns to train on, as shards."""
    comparison, declared = system.comparison, read_yaml(system.graph)
    for tool in declared.get("tools", []):
        function = tool["function"]
        if isinstance(function, Mapping) and function["class_path"] == _TOOL:
            tool["function"] = {**function, "init_args": {**function["init_args"], "release": comparison.release}}
    with atomic_write(system.folder / "graph.yaml") as stream:
        stream.write(to_yaml(declared).encode())
    data = comparison.data
    tasks = draw_answer_tasks(
        data.train, MentionReader(data.database), comparison.sizes.num_turns, seed=comparison.seed
    )
    with TemporaryDirectory() as temporary:
        lines = Path(temporary) / "turns.jsonl"
        lines.write_text("".join(json.dumps(task) + "\n" for task in tasks), encoding="utf-8")
        write_jsonl_shards(lines, system.folder / "turns", options=WriteOptions(overwrite=True))


def measure(system: System, when: When) -> None:
    """Runs the system over the dialogues that were not run yet.

    Raises:
        Preempted: the deadline has passed; what is done stays.
    """
    comparison, at_once = system.comparison, system.comparison.sizes.at_once
    parts = {"held_out": comparison.data.held_out, "dev": comparison.data.dev}
    outs = {part: system.folder / f"{when}_{part}.jsonl" for part in parts}
    left = sum(len(dialogues) - len(read_said(outs[part])) for part, dialogues in parts.items())
    if not left:
        return
    comparison.left()
    graph = load_graph(system.folder / "graph.yaml")
    models = load_models(
        comparison.models, graph, load_local=partial(_load_trained, system) if when == "after" else LocalModel.load
    )

    def run() -> Iterator[object]:
        for part, dialogues in parts.items():
            for count, each in enumerate(evaluate(graph, models, dialogues, outs[part], at_once=at_once), 1):
                yield each
                if count % at_once == 0:
                    comparison.left()

    started = time.monotonic()
    try:
        for _ in tracked(run(), f"dialogues, {system.name} {when} training", total=left):
            pass
    finally:
        system.note(when, time.monotonic() - started)


def _load_trained(system: System, config: LocalModelConfig) -> LocalModel:
    """A model with what the system's training has written."""
    best = system.folder / "run" / BEST
    soft = best / SOFT_PROMPTS
    adapters, prompts = str(best / ADAPTERS), str(soft) if soft.exists() else None
    return LocalModel.load(replace(config, adapters=adapters, soft_prompts=prompts))


def train(system: System) -> None:
    """Trains the system to its end by `framework fit`, or goes on with it, in a process of its own.

    Raises:
        Preempted: the deadline has passed, or a signal stopped the training; it has saved itself.
        TrainingError: it failed.
    """
    if (system.folder / "trained.json").exists():
        return
    seconds, started = system.comparison.left(), time.monotonic()
    process, is_stopped = Popen(_fit_command(system)), False
    try:
        code = process.wait(seconds)
    except TimeoutExpired:
        is_stopped = True
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        system.note("training", time.monotonic() - started)
    # Before its first step it ends as any process does by the signal.
    if code == Preempted.exit_code or (is_stopped and code):
        raise Preempted("the training was stopped; what it has saved stays", hint="call it again: it goes on")
    if code:
        raise TrainingError(f"training of {system.name} failed", hint=f"see its output; its run is in {system.folder}")
    best = system.folder / "run" / BEST
    files = [best / SOFT_PROMPTS, *sorted((best / ADAPTERS).glob("*/*.safetensors"))]
    record = {
        "parameters": sum(map(_num_values, filter(Path.exists, files))),
        "steps": read_record(best / "validation.json").get("step"),
    }
    _write_record(system.folder / "trained.json", record)


def _fit_command(system: System) -> list[str]:
    """The training's command; the agent alone gets as many parameters as the team."""
    comparison, recipe = system.comparison, system.comparison.setup.recipe
    num_tokens, rank, alpha = soft_sizes(recipe)
    times = comparison.size_ratio if system.name == "alone" else 1
    settings = {
        "run.dir": str(system.folder / "run"),
        "data.train": str(system.folder / "turns"),
        "model.init_args.graph": str(system.folder / "graph.yaml"),
        "model.init_args.models": comparison.models,
        "model.init_args.seed": comparison.seed,
        "model.init_args.soft.target": _TARGETS.format(system.name),
        "model.init_args.soft.num_tokens": times * num_tokens,
        "model.init_args.soft.adapters.rank": times * rank,
        "model.init_args.soft.adapters.alpha": times * alpha,
        "seed_everything": comparison.seed,
    }
    return fit_command(recipe, settings, comparison.fit)


def soft_sizes(recipe: str) -> tuple[int, int, int]:
    """Of the recipe of a training: the tokens of a soft prompt, and an adapter's rank and alpha.

    Raises:
        ConfigError: no such recipe, or it trains no adapters.
    """
    try:
        soft: JsonDict = read_yaml(recipe)["model"]["init_args"]["soft"]
        adapters: JsonDict = dict(soft["adapters"])
    except (KeyError, TypeError, ValueError):
        problem = f"{recipe} has no adapters in model.init_args.soft"
        hint = "give a recipe that trains them, such as recipes/gbc/multiwoz_small_train.yaml"
        raise ConfigError(problem, hint=hint) from None
    rank, alpha = adapters.get("rank", AdapterConfig.rank), adapters.get("alpha", AdapterConfig.alpha)
    return soft.get("num_tokens", SoftConfig.num_tokens), rank, alpha


def _num_values(path: Path) -> int:
    return sum(value.numel() for value in load_file(path).values())
