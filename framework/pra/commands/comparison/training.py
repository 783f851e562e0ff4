"""How a part of a comparison, or its classifier, is trained: by `framework fit`, from one beginning to its end."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from framework.core.errors import CheckpointError, ConfigError, Interrupted, Preempted, TrainingError
from framework.core.io import atomic_write, sha256_of
from framework.core.serialization import parse_object
from framework.core.settings.fit_command import as_words, fit_command
from framework.evaluation.features import ClassifierFeatures
from framework.pra.commands.comparison.parts import Part
from framework.pra.commands.comparison.protocol import Protocol, differences
from framework.pra.commands.comparison.results import read_result
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, name_of, step_of

_RECORD = "training.json"
"""What a run was begun with, written before its first step."""


def fit(recipe: str, run: Path, settings: Mapping[str, object], options: Sequence[str] = (), *, seed: int) -> None:
    """Trains a run to its end, or goes on with it, in a process of its own.

    Args:
        recipe: of the run.
        run: its folder.
        settings: of `framework fit`, whatever the options say.
        options: further ones, as words.
        seed: of data and weights.

    Raises:
        Preempted: a signal has stopped it; it has saved itself.
        Interrupted: the same, by its user.
        TrainingError: it failed.
    """
    # A process of its own: a run must not inherit the random state or the memory of the one before.
    own = as_words({**settings, "run.dir": run, "seed_everything": seed})
    code = run_to_end(fit_command(recipe, {}, [*options, *own]))
    for stopped in (Preempted, Interrupted):
        if code == stopped.exit_code:
            raise stopped(f"training of {run.name} was stopped", hint="start it again: it goes on")
    if code:
        raise TrainingError(f"training of {run.name} failed", hint=f"see its output; its run is in {run}")


def run_to_end(command: Sequence[str]) -> int:
    """The exit code of a process; one that is still running when this one is stopped is told to save itself."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def check_begun(run: Path, wanted: Mapping[str, object]) -> None:
    """Whether a run was begun as is asked for; of a new one that is written down.

    Args:
        run: its folder.
        wanted: the settings that it cannot go on without.

    Raises:
        ConfigError: it was begun with others.
        DataError: a result in it is damaged.
    """
    record = run / _RECORD
    if record.is_file():
        begun = parse_object(record.read_bytes())
    else:
        # Of before that was written down, its results tell.
        results = (read_result(folder) for folder in (run, *run.glob("measured-*")))
        begun = next((each.settings for each in results if each is not None), None)
    if begun is None:
        with atomic_write(record) as stream:
            stream.write(json.dumps(wanted).encode())
    elif unlike := differences(begun, wanted):
        problem = f"{run} was trained with another recipe or other options ({', '.join(unlike)})"
        raise ConfigError(problem, hint="take another folder for this comparison")


def train_part(part: Part, run: Path, protocol: Protocol) -> None:
    """Trains a part, unless it is trained as long as is asked for. Raises TrainingError, Preempted or Interrupted.

    Args:
        part: which.
        run: its folder.
        protocol: recipe and options.
    """
    if protocol.training_steps and checkpoint_at(run, protocol.training_steps[-1]).is_dir():
        return
    if not protocol.training_steps and _is_beyond(run, protocol.recipe_steps):
        return
    chosen = part.architecture
    settings = {
        "model.architecture.variant": chosen.variant,
        "model.architecture.image_size": chosen.image_size,
        "model.architecture.patch_size": chosen.patch_size,
        "model.architecture.depth": chosen.depth,
        "model.architecture.head_width": chosen.head_width,
        "data.images.size": chosen.image_size,
        "model.init_args.seed": part.seed,
    }
    fit(protocol.recipe, run, settings, protocol.training_options, seed=part.seed)


def train_classifier(recipe: str, run: Path, image_size: int) -> ClassifierFeatures:
    """A classifier of images of a size, trained unless it is. Raises TrainingError, Preempted or Interrupted.

    Args:
        recipe: of a `ClassifierModule`.
        run: its folder.
        image_size: side in pixels.

    Raises:
        ConfigError: the classifier there is of another recipe.
    """
    run.mkdir(exist_ok=True)
    check_begun(run, {"recipe_sha256": sha256_of(Path(recipe))})
    fit(recipe, run, {"data.images.size": image_size}, seed=0)
    return ClassifierFeatures(str(run))


def checkpoint_at(run: Path, training_steps: int) -> Path:
    """The checkpoint of a run after so many steps."""
    return run / FOLDER / name_of(training_steps)


def checkpoint_of(run: Path, training_steps: int | None, protocol: Protocol) -> Path:
    """What a part is measured from: a checkpoint, or the run itself, whose newest is taken.

    Args:
        run: its folder.
        training_steps: after which it is measured; None for the end of the recipe.
        protocol: how it is trained.

    Raises:
        CheckpointError: the run has kept no checkpoint of that step.
    """
    steps = training_steps
    if steps is None:
        if not _is_beyond(run, protocol.recipe_steps):
            return run
        steps = protocol.recipe_steps
    assert steps is not None
    checkpoint = checkpoint_at(run, steps)
    if not checkpoint.is_dir():
        problem = f"{run} has kept no checkpoint after {steps} steps"
        way_out = "take another folder" if training_steps is None else "leave that number out, or take another folder"
        raise CheckpointError(problem, hint=way_out)
    return checkpoint


def check_kept(run: Path, training_steps: int | None, protocol: Protocol) -> None:
    """Whether a part can be measured after so many steps: they lie ahead of it, or it has kept a checkpoint.

    Args:
        run: its folder.
        training_steps: None for the end of the recipe.
        protocol: how it is trained.

    Raises:
        CheckpointError: it is beyond them, and has kept none.
    """
    if _is_beyond(run, training_steps or protocol.recipe_steps):
        checkpoint_of(run, training_steps, protocol)


def results_folder(run: Path, training_steps: int | None) -> Path:
    """Where what is measured of a part after so many steps lies, or at the end of its recipe (None)."""
    return run if training_steps is None else run / f"measured-{training_steps}"


def _is_beyond(run: Path, steps: int | None) -> bool:
    """Whether a run has been trained for more steps."""
    newest = list_checkpoints(run / FOLDER)[-1:]
    return steps is not None and bool(newest) and step_of(newest[0]) > steps
