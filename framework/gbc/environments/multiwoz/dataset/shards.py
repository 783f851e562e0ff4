"""MultiWOZ to shard sets of episodes, one dialogue each."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from framework.core.errors import DataError
from framework.core.serialization import to_json
from framework.data.shards.manifest import Manifest, Skipped
from framework.data.shards.writer import Listing, SourceFile, WriteOptions, write_listing
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, read_dialogue
from framework.gbc.environments.multiwoz.dataset.fewshot import read_fewshot_dialogue, read_turns
from framework.gbc.environments.multiwoz.dataset.release import SPLITS, read_release


def write_multiwoz_shards(
    source: str | Path,
    dest: str | Path,
    *,
    options: WriteOptions = WriteOptions(),
) -> dict[str, Manifest]:
    """Writes the dialogues of a release, or of a few-shot file, as shards of episodes.

    A dialogue that is empty, truncated or has a label for an unknown slot is skipped, and listed with the reason.

    Args:
        source: a folder or zip of MultiWOZ 2.1 or 2.4, or a few-shot file (.json).
        dest: gets the sets `train`, `validation` and `test`, of those that have dialogues; of a few-shot file, itself
            the set.
        options: how each set is written.

    Returns:
        What was written, by the folder inside `dest`; "" for `dest` itself.

    Raises:
        DataError: what `read_release`, `read_turns` or `write_listing` raise.
    """
    dest = Path(dest)
    if Path(source).suffix == ".json":
        turns = read_turns(source)
        return {"": _write(dest, turns, lambda id: read_fewshot_dialogue(id, turns[id]), options)}
    release = read_release(source)
    splits = release.splits()

    def read(id: str) -> Dialogue:
        acts = release.acts.get(id.removesuffix(".json"), release.acts.get(id))
        return read_dialogue(id, release.dialogues[id], split=splits[id], acts=acts)

    missing = tuple(Skipped(source=id, reason="listed, but not in data.json") for id in release.missing())
    written: dict[str, Manifest] = {}
    for split in SPLITS:
        ids = [id for id, found in splits.items() if found == split]
        if ids:
            absent = tuple(each for each in missing if each.source in release.lists.get(split, ()))
            written[split] = _write(dest / split, ids, read, options, skipped=absent)
    if not written:
        raise DataError(f"{source} has no dialogue", hint="give the whole release")
    return written


def _write(
    dest: Path,
    ids: Iterable[str],
    read: Callable[[str], Dialogue],
    options: WriteOptions,
    *,
    skipped: tuple[Skipped, ...] = (),
) -> Manifest:
    samples: dict[str, object] = {}
    bad = list(skipped)
    for id in ids:
        try:
            dialogue = read(id)
        except DataError as error:
            bad.append(Skipped(source=id, reason=error.problem))
            continue
        samples[id] = to_json(dialogue)
    return write_samples(dest, samples, options, tuple(bad))


def write_samples(
    dest: Path, samples: Mapping[str, object], options: WriteOptions, skipped: tuple[Skipped, ...] = ()
) -> Manifest:
    """Writes JSON objects as a shard set of episodes; errors as in `write_listing`.

    Args:
        dest: folder of the set.
        samples: by name, in their order.
        options: how.
        skipped: what the set lacks.
    """

    def as_bytes(file: SourceFile) -> bytes:
        return json.dumps(samples[file.path], ensure_ascii=False, sort_keys=True).encode()

    files = tuple(SourceFile(path=id, label=None) for id in samples)
    listing = Listing(classes=(), files=files, skipped=skipped)
    return write_listing(dest, listing, as_bytes, kind="episodes", options=options)
