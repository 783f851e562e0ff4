"""What commands that make shards tell when they are done."""

from framework.core.console import console
from framework.data.shards.manifest import Manifest

_NUM_LISTED = 20


def print_summary(manifest: Manifest, dest: str) -> None:
    """Says what was written to a shard set, and what was skipped."""
    for skipped in manifest.skipped[:_NUM_LISTED]:
        console.print(f"skipped {skipped.source}: {skipped.reason}", style="yellow")
    if len(manifest.skipped) > _NUM_LISTED:
        more = len(manifest.skipped) - _NUM_LISTED
        console.print(f"and {more} more, all in {dest}/manifest.json", style="yellow")
    what = "episodes" if manifest.kind == "episodes" else f"images of {len(manifest.classes)} classes"
    console.print(
        f"{manifest.num_samples} {what} in {len(manifest.shards)} shards in {dest}; {len(manifest.skipped)} skipped"
    )
