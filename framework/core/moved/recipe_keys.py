"""Keys of recipes that have moved: the one table of their old and new names.

An old key is an error that names the new one. Recipes in checkpoints keep their old keys, and are compared by the new.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

MOVED_KEYS = {
    "data.image_size": "data.images.size",
    "data.channels": "data.images.channels",
    "data.crop": "data.images.crop",
    "data.flip": "data.images.flip",
    "data.shuffle": "data.order.shuffle",
    "data.block_shards": "data.order.block_shards",
    "data.remainder": "data.order.remainder",
    "data.num_workers": "data.loading.num_workers",
    "data.on_bad_sample": "data.loading.on_bad_sample",
    "data.max_bad_samples": "data.loading.max_bad_samples",
    "model.init_args.mix_twins": "model.init_args.mixup",
    "model.init_args.attribution.edits.max_wished": "model.init_args.attribution.edits.max_targets",
}


def explain_moved_key(message: str) -> str | None:
    """What to tell in place of a parser's message about an unknown key, if that is an old name of a known one.

    Args:
        message: of jsonargparse: `Subcommand 'fit' does not accept option 'data.crop'`, `Group 'data' does not accept
            option 'crop'`, `Option 'crop' is not accepted` inside a class's arguments, or
            `unrecognized arguments: --data.crop ...`.
    """
    for old, new in MOVED_KEYS.items():
        group, _, name = old.rpartition(".")
        short = old.replace(".init_args.", ".")
        forms = (
            rf"does not accept option '{re.escape(old)}'",
            rf"Group '{group}' does not accept option '{name}'",
            rf"Option '{name}' is not accepted",
            rf"unrecognized arguments:.*--({re.escape(old)}|{re.escape(short)})\b(?!\.)",
        )
        if any(re.search(form, message) for form in forms):
            return f"{old} is now {new}"
    return None


def with_new_keys(settings: Mapping[str, Value]) -> dict[str, Value]:
    """Settings by dotted key, old keys by their new names."""
    return {MOVED_KEYS.get(key, key): value for key, value in settings.items()}
