"""Which data a run is trained on: class names and digests of its shard sets, by which other data are noticed.

Kept in `data.json` of the run's folder, in every checkpoint and in what is exported.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from framework.core.io import atomic_write
from framework.core.serialization import from_json, parse_object, to_json

FILE = "data.json"
_NUM_NAMED = 5
_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class SetIdentity:
    """A shard set, wherever it lies.

    Attributes:
        path: its folder or URL, for people: the same set may lie elsewhere.
        digest: SHA-256 of what its samples are and of their order and labels, in hexadecimal.
        num_samples: samples in it.
    """

    path: str
    digest: str
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class DataIdentity:
    """What a run reads.

    Attributes:
        classes: class names; a label is a position in it. None for episodes.
        train: the sets that are trained on, in their order.
        validation: the set that is validated on, if there is one.
    """

    classes: tuple[str, ...]
    train: tuple[SetIdentity, ...]
    validation: SetIdentity | None = None


def class_changes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """What has become of class names, in words: other numbers, names that are gone, and new ones; the first of many.

    Args:
        before: class names by number.
        now: the same of other data.
    """
    old, new = ({name: number for number, name in enumerate(names)} for names in (before, now))
    changes = [
        f"{name!r}, class {number}, is gone" if name not in new else f"{name!r} was class {number} and is {new[name]}"
        for name, number in old.items()
        if new.get(name) != number
    ]
    changes += [f"{name!r} is new as class {number}" for name, number in new.items() if name not in old]
    more = len(changes) - _NUM_NAMED
    return changes if more <= 1 else [*changes[:_NUM_NAMED], f"and so on with {more} classes more"]


def data_changes(before: DataIdentity, now: DataIdentity) -> list[str]:
    """How the data that are trained on differ from those of before, in words; none where they are the same.

    Args:
        before: what a checkpoint was trained on.
        now: what training would go on with.
    """
    changes = class_changes(before.classes, now.classes)
    old, new = ([each.digest for each in sets] for sets in (before.train, now.train))
    if len(old) != len(new):
        return [*changes, f"{len(old)} shard sets were trained on, and now {len(new)}"]
    if old != new and sorted(old) == sorted(new):
        return [*changes, "the shard sets are in another order"]
    return changes + [
        f"{there.path} is not {here.path} as it was (digest {_short(there)}, was {_short(here)}; "
        f"{there.num_samples:,} samples, were {here.num_samples:,})"
        for here, there in zip(before.train, now.train, strict=True)
        if here.digest != there.digest
    ]


def _short(shards: SetIdentity) -> str:
    return shards.digest[:_DIGITS]


def note_data(run_dir: Path, identity: DataIdentity) -> None:
    """Writes what the run reads into its folder. Raises OSError."""
    with atomic_write(run_dir / FILE) as stream:
        stream.write((json.dumps(to_json(identity), indent=1, ensure_ascii=False) + "\n").encode())


def read_data(run_dir: Path) -> DataIdentity | None:
    """What the run in a folder reads; None where it has not noted it, as runs of before."""
    try:
        content = parse_object((run_dir / FILE).read_bytes())
        return from_json(DataIdentity, content, allow_missing=True, ignore_unknown=True)
    except (OSError, ValueError):
        return None
