"""Queries over a release's databases."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from framework.core.errors import DataError
from framework.core.serialization import JsonDict
from framework.gbc.environments.multiwoz.dataset.release import read_tables
from framework.gbc.environments.multiwoz.dataset.slots import attribute_name
from framework.gbc.environments.multiwoz.dataset.values import (
    DONTCARE,
    UNKNOWN,
    alternatives,
    minutes,
    name_key,
    normalise,
)

SEARCHED = ("attraction", "hotel", "restaurant", "train")
"""The domains with a table: a taxi comes wherever it is called."""

_NAMES = ("name", "departure", "destination")


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A row.

    Attributes:
        id: of the row in its domain; a train's number.
        domain: its table.
        values: columns in the spelling of `attribute_name` to normalised values; `?` where unknown.
        texts: the same as the release writes them, for answers.
    """

    id: str
    domain: str
    values: Mapping[str, str]
    texts: Mapping[str, str]

    @property
    def name(self) -> str:
        """What it is called: the name, or a train's number; normalised."""
        return self.values["trainid" if self.domain == "train" else "name"]


class Database:
    """The entities of a release.

    Args:
        tables: by domain a list of rows; of `taxi` an object with `taxi_colors` and `taxi_types`. As `read_tables`
            gives them.

    Raises:
        DataError: a table that is missing or has another form.
    """

    def __init__(self, tables: JsonDict) -> None:
        try:
            self.entities = {domain: tuple(_entities(domain, tables[domain])) for domain in SEARCHED}
            self.cars = tuple(
                f"{colour} {kind}" for colour in tables["taxi"]["taxi_colors"] for kind in tables["taxi"]["taxi_types"]
            )
        except (KeyError, TypeError, AttributeError) as error:
            problem = f"the databases have not the form of MultiWOZ 2.1 ({type(error).__name__}: {error})"
            raise DataError(problem, hint="give the *_db.json files of the release") from None
        self._columns = {domain: _columns(entities) for domain, entities in self.entities.items()}
        self._search = lru_cache(maxsize=4096)(self._search_uncached)

    @classmethod
    def of_release(cls, source: str | Path) -> "Database":
        """The databases in a release's folder or zip; errors as in `read_tables`."""
        return cls(read_tables(source))

    def query(self, domain: str, constraints: Mapping[str, str]) -> tuple[Entity, ...]:
        """The entities that meet all constraints, in the order of the table.

        As Nekvinda & Dušek 2021 query: a train leaves at the wanted time or later and arrives then or earlier; what
        the database does not know fits; `dontcare`, and what is not a column of the table (a booking's day), constrains
        nothing. Names fit if one is a part of the other, in whole words (theirs: a fuzzy match). Of alternatives any
        may fit. A time that is none constrains nothing.

        Args:
            domain: one without a table has no entities.
            constraints: by slot without its domain.
        """
        if domain not in SEARCHED:
            return ()
        wanted = {
            slot: normalise(f"{domain}-{slot}", value) for slot, value in constraints.items() if "book " not in slot
        }
        return self._search(domain, tuple(sorted((slot, value) for slot, value in wanted.items() if value)))

    def query_state(self, domain: str, state: Mapping[str, str]) -> tuple[Entity, ...]:
        """`query` with the domain's part of a belief state."""
        return self.query(domain, domain_part(state, domain))

    def _search_uncached(self, domain: str, wanted: tuple[tuple[str, str], ...]) -> tuple[Entity, ...]:
        rows = set(range(len(self.entities[domain])))
        for slot, value in wanted:
            # A column has few different values, and a table many rows.
            column = self._columns[domain].get(slot)
            if column is not None:
                rows &= {row for found, places in column.items() if _fits(slot, found, value) for row in places}
        return tuple(self.entities[domain][row] for row in sorted(rows))


def domain_part(state: Mapping[str, str], domain: str) -> dict[str, str]:
    """The slots of a domain, without its name."""
    return {slot.partition("-")[2]: value for slot, value in state.items() if slot.startswith(f"{domain}-")}


def _entities(domain: str, rows: Any) -> list[Entity]:
    found: list[Entity] = []
    for number, row in enumerate(rows):
        texts = {
            attribute_name(key, domain=domain): value
            for key, value in row.items()
            if isinstance(value, str) and key != "id"
        }
        values = {key: normalise(f"{domain}-{key}", text) or UNKNOWN for key, text in texts.items()}
        # Trains of several days may share a number, which is all that an answer tells of them.
        id = texts["trainid"] if domain == "train" else str(row.get("id", number))
        found.append(Entity(id=id, domain=domain, values=values, texts=texts))
    return found


def _columns(entities: tuple[Entity, ...]) -> dict[str, dict[str, list[int]]]:
    """By column and value, the rows. A row without the column is one that does not know it."""
    names = {name for entity in entities for name in entity.values}
    columns: dict[str, dict[str, list[int]]] = {name: {} for name in names}
    for row, entity in enumerate(entities):
        for name in names:
            columns[name].setdefault(entity.values.get(name, UNKNOWN), []).append(row)
    return columns


def _fits(slot: str, value: str, wanted: str) -> bool:
    if value == UNKNOWN or wanted in (UNKNOWN, DONTCARE):
        return True
    return any(_fits_one(slot, value, one) for one in alternatives(wanted))


def _fits_one(slot: str, value: str, wanted: str) -> bool:
    if slot in ("leaveat", "arriveby"):
        time, bound = minutes(value), minutes(wanted)
        if time is None or bound is None:
            return True
        return time >= bound if slot == "leaveat" else time <= bound
    if slot in _NAMES:
        first, second = f" {name_key(value)} ", f" {name_key(wanted)} "
        return first in second or second in first
    return value == wanted
