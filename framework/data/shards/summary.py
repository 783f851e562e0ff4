"""What commands that make shards tell when they are done."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from framework.core.console import console
from framework.data.images.notes import ImageNote
from framework.data.images.options import DAMAGE
from framework.data.shards.manifest import Manifest

_NUM_LISTED = 20


def print_summary(manifest: Manifest, dest: str) -> None:
    """Says what was written to a shard set, and what was skipped."""
    for skipped in manifest.skipped[:_NUM_LISTED]:
        console.print(f"skipped {skipped.source}: {skipped.reason}", style="yellow")
    if len(manifest.skipped) > _NUM_LISTED:
        more = len(manifest.skipped) - _NUM_LISTED
        console.print(f"and {more} more, all in {dest}/manifest.json", style="yellow")
    num_damaged = sum(skipped.reason.startswith(f"{DAMAGE}:") for skipped in manifest.skipped)
    if num_damaged:
        text = f"{num_damaged} are damaged: --damaged keep takes those that can be decoded all the same"
        console.print(text, style="yellow")
    print_notes(manifest.notes)
    for names in _alike(manifest.classes)[:_NUM_LISTED]:
        text = f"classes that look alike: {', '.join(map(ascii, names))}; if they are one, give them one name"
        console.print(text, style="yellow")
    what = "episodes" if manifest.kind == "episodes" else f"images of {len(manifest.classes)} classes"
    console.print(
        f"{manifest.num_samples} {what} in {len(manifest.shards)} shards in {dest}; {len(manifest.skipped)} skipped"
    )


def _alike(classes: Sequence[str]) -> list[list[str]]:
    """Class names that are the same but for capitals, spaces around them, or the form of Unicode that an accent has."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[unicodedata.normalize("NFKC", name).strip().casefold()].append(name)
    return [names for names in groups.values() if len(names) > 1]


def print_notes(notes: Sequence[ImageNote]) -> None:
    """Says what was noticed about images that can be used: how many of them, and the name of one."""
    for note in notes[:_NUM_LISTED]:
        number = "1 image" if note.count == 1 else f"{note.count:,} images"
        example = note.first if note.count == 1 else f"such as {note.first}"
        console.print(f"{note.what}: {number}, {example}", style="yellow")
    if len(notes) > _NUM_LISTED:
        console.print(f"and {len(notes) - _NUM_LISTED:,} more such notes", style="yellow")
