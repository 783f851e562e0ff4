"""Tasks of MultiWOZ for a system of a real language model: first turns of dialogues, which can be settled alone."""

from pathlib import Path

from framework.core.errors import DataError
from framework.core.serialization import JsonDict
from framework.gbc.attribution.culprits.error_paths import has_words
from framework.gbc.environments.multiwoz.dataset.fewshot import read_fewshot_dialogue, read_turns

_KINDS = {"restaurant": ("pricerange", "area"), "train": ("day", "departure")}
"""The slots of the state after the first turn, by domain."""
_MOST = 12


def first_turns(folder: Path) -> list[JsonDict]:
    """Tasks with what the user says first and the slots of the state after it, 12 at most of each domain.

    Only turns whose state has just the slots that the system tracks, each value of which the user says; texts differ.

    Args:
        folder: with the few-shot files of IC-DST, such as `fewshot_dev_24.json`.

    Raises:
        DataError: a folder without such files, or files without such turns.
    """
    found: dict[str, list[JsonDict]] = {domain: [] for domain in _KINDS}
    seen: set[str] = set()
    for path in sorted(folder.glob("fewshot_*.json")):
        for id, records in sorted(read_turns(path).items()):
            turn = read_fewshot_dialogue(id, records).turns[0]
            for domain, slots in _KINDS.items():
                values = {slot: turn.state.get(f"{domain}-{slot}", "") for slot in slots}
                told = set(turn.state) == {f"{domain}-{slot}" for slot in slots}
                if told and turn.user not in seen and all(has_words(turn.user, each) for each in values.values()):
                    seen.add(turn.user)
                    found[domain].append({"user": turn.user, "expected": {"domain": domain, **values}})
    if not all(found.values()):
        raise DataError(f"{folder} has too few first turns", hint="give the folder of IC-DST's few-shot files")
    return [task for tasks in found.values() for task in tasks[:_MOST]]
