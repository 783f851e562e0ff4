"""Ranks' signs of life in a store that all of them reach."""

import json
from typing import TypedDict, cast

import torch.distributed as dist

_VERDICT = "verdict"


class Beat(TypedDict):
    """A rank's sign of life: how many came before it, and where the rank is."""

    number: int
    at: str


class SignsOfLife:
    """What one rank says and asks; raises RuntimeError where the store does not answer.

    Args:
        store: a connection of its own; keys are those of this run alone.
        rank: who speaks.
        num_ranks: of all.
    """

    def __init__(self, store: dist.Store, rank: int, num_ranks: int) -> None:
        self._store, self._rank, self._num_ranks = store, rank, num_ranks

    def send(self, beat: Beat) -> None:
        """Tells where the rank is."""
        self._store.set(str(self._rank), json.dumps(beat))

    def read(self) -> list[Beat | None]:
        """Every rank's last sign, by rank; None of those that have not started."""
        keys = [str(rank) for rank in range(self._num_ranks)]
        if self._store.check(keys):
            # One question instead of thousands.
            found = cast("list[bytes]", self._store.multi_get(keys))  # pyright: ignore
            return [json.loads(text) for text in found]
        return [json.loads(self._store.get(key)) if self._store.check([key]) else None for key in keys]

    def end_all(self) -> None:
        """Tells all ranks to end."""
        self._store.set(_VERDICT, str(self._rank))

    def all_end(self) -> bool:
        """Whether a rank has told all to end."""
        return self._store.check([_VERDICT])
