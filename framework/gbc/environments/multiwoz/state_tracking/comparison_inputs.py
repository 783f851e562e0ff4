"""What a comparison of a team and one agent alone is made of: files, sizes, and the dialogues of them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from framework.core.errors import ConfigError, DataError
from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, read_dialogue
from framework.gbc.environments.multiwoz.dataset.fewshot import read_fewshot_dialogue, read_turns
from framework.gbc.environments.multiwoz.dataset.release import read_release

log = logging.getLogger(__name__)

SystemName = Literal["team", "alone"]
SYSTEMS: tuple[SystemName, ...] = ("team", "alone")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is trained, and how.

    Args:
        recipe: of the training, which fits the team.
        team: YAML file of the graph of several agents.
        alone: YAML file of the graph of one.
    """

    recipe: str = "recipes/gbc/multiwoz_small_train.yaml"
    team: str = "recipes/gbc/graphs/multiwoz_small.yaml"
    alone: str = "recipes/gbc/graphs/multiwoz_alone.yaml"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much.

    Args:
        num_turns: to train on.
        num_dialogues: held-out dialogues of the release.
        num_dev: dialogues of the other few-shot file.
        at_once: dialogues whose turns share batches; a kill loses so many.
    """

    num_turns: int = 384
    num_dialogues: int = 16
    num_dev: int = 16
    at_once: int = 8

    def __post_init__(self) -> None:
        if min(self.num_turns, self.num_dialogues, self.num_dev, self.at_once) < 1:
            raise ConfigError(f"{self}", hint="use 1 or more of each")


@dataclass(frozen=True, kw_only=True)
class Data:
    """Dialogues.

    Attributes:
        train: of the few-shot file.
        held_out: of the release, with goals.
        dev: of another few-shot file.
        database: of the release.
    """

    train: list[Dialogue]
    held_out: list[Dialogue]
    dev: list[Dialogue]
    database: Database


def load_data(release: str, train: str, dev: str | None, *, sizes: Sizes) -> Data:
    """The dialogues to train and to measure on; those that are empty, truncated or mislabelled are left out.

    Args:
        release: folder or zip with goals and databases; of its validation dialogues, or of all where it names none,
            those that are in no few-shot file are held out.
        train: few-shot file.
        dev: another one.
        sizes: how many.

    Raises:
        ConfigError: no dialogue is left.
        DataError: a file that cannot be read.
    """
    known = read_release(release)
    splits = known.splits()
    validation = [id for id, split in splits.items() if split == "validation"] or [*splits]
    few = {id: turns for path in (train, dev) if path is not None for id, turns in read_turns(path).items()}
    found = _readable(release, validation, lambda id: read_dialogue(id, known.dialogues[id], split=splits[id]))
    chosen = held_out(found, set(few), sizes.num_dialogues)
    if not chosen:
        raise ConfigError(f"{release} has no other dialogue with a goal", hint="give a whole release")
    others = [] if dev is None else _fewshot(dev)
    return Data(
        train=_fewshot(train),
        held_out=chosen,
        dev=spread(others, sizes.num_dev),
        database=Database.of_release(release),
    )


def _fewshot(path: str) -> list[Dialogue]:
    turns = read_turns(path)
    return _readable(path, list(turns), lambda id: read_fewshot_dialogue(id, turns[id]))


def _readable(source: str, ids: Sequence[str], read: Callable[[str], Dialogue]) -> list[Dialogue]:
    """The dialogues that can be read, as `framework shards` takes them; a warning tells of the others."""
    found: list[Dialogue] = []
    bad: list[str] = []
    for id in ids:
        try:
            found.append(read(id))
        except DataError as error:
            bad.append(error.problem)
    if bad:
        log.warning("%s: %d of %d dialogues are left out; the first: %s", source, len(bad), len(ids), bad[0])
    return found


def held_out(dialogues: Sequence[Dialogue], excluded: set[str], num: int) -> list[Dialogue]:
    """Dialogues with a goal that are not among others, spread evenly over all of these.

    Args:
        dialogues: of a release.
        excluded: ids, with or without `.json`.
        num: at most as many.
    """
    names = {id.removesuffix(".json") for id in excluded}
    return spread([each for each in dialogues if each.goal and each.id.removesuffix(".json") not in names], num)


def spread(dialogues: Sequence[Dialogue], num: int) -> list[Dialogue]:
    """At most `num` of the dialogues, spread evenly over them."""
    count = min(num, len(dialogues))
    return [dialogues[number * len(dialogues) // count] for number in range(count)]
