"""What a run keeps in its folder, by name; light, for commands that only look."""

from pathlib import Path

from framework.core.io import atomic_write
from framework.tracking.restarts import FILE

METRICS = "metrics"
RECIPE = "recipe.yaml"
PREEMPTED = "preempted.json"
"""There while a preempted run waits to go on: a launcher such as torchrun hides the exit code."""
UNSENT = ".unsent"
"""Suffix of the marker beside the `.wandb` file of an online start whose data did not all get through."""
_WANDB_ID = "wandb-id"


def is_written_by_run(file: Path) -> bool:
    """Whether a run wrote a file: it lies in a run's folder, or in a folder of that."""
    return any((folder / name).exists() for folder in file.resolve().parents[:2] for name in (FILE, METRICS))


def saved_wandb_id(folder: str | Path) -> str | None:
    """The W&B id of the run in a folder, if it has one that can be read."""
    file = Path(folder) / _WANDB_ID
    try:
        # Empty where the disk was full.
        return (file.read_bytes().decode("utf-8-sig").strip() or None) if file.is_file() else None
    except UnicodeDecodeError:
        return None


def keep_wandb_id(folder: Path, identity: str) -> None:
    """Makes the run in a folder, which has none yet, go on as a run that W&B knows."""
    if saved_wandb_id(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / _WANDB_ID) as stream:
            stream.write(identity.encode())
