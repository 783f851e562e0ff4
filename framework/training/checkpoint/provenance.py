"""What made a checkpoint, and how a recipe differs from the one that did."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml
from lightning.pytorch import Trainer

from framework.core.moved.import_paths import current_text
from framework.core.moved.recipe_keys import with_new_keys
from framework.tracking.data_identity import DataIdentity
from framework.training.strategies.config import PACKAGES

_PACKAGES = ("framework", "torch", "lightning", "numpy", *PACKAGES)
_OWN = ("run", "resume", "config")
"""Sections that say where a run is and how it starts, not what it is."""


@cache
def git_revision() -> str | None:
    """The commit of the framework's source, with `-dirty` where files differ; None outside of a git work tree."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def package_versions() -> dict[str, str]:
    """Versions of what a checkpoint depends on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def data_of(trainer: Trainer) -> DataIdentity | None:
    """What a trainer's data module reads, where it tells."""
    found = getattr(getattr(trainer, "datamodule", None), "identity", None)
    return found if isinstance(found, DataIdentity) else None


def recipe_changes(before: str | None, now: str | None) -> list[str]:
    """`key: old -> new` for every setting that differs between two recipes in YAML; none where one is unknown.

    An import path that has only moved is no difference.
    """
    if before is None or now is None:
        return []
    old = with_new_keys(_flat(yaml.safe_load(current_text(before))))
    new = with_new_keys(_flat(yaml.safe_load(now)))
    return [
        f"{key}: {old.get(key, 'not set')} -> {new.get(key, 'not set')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key.partition(".")[0] not in _OWN
    ]


def _flat(tree: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(tree, dict) or not tree:
        return {prefix.removesuffix("."): tree}
    return {key: value for name, branch in tree.items() for key, value in _flat(branch, f"{prefix}{name}.").items()}
