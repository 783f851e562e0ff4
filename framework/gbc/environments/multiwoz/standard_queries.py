"""Queries of predicted states as the standardised evaluation makes them (Nekvinda & Dušek 2021, their program).

A predicted value has to be the database's own spelling, but for the words that the evaluation corrects; names and foods
may be almost equal, so that `european` finds `modern european` too. Figures are comparable only with both.
"""

import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import lru_cache

from framework.core.serialization import JsonDict
from framework.gbc.environments.multiwoz.dataset.database import SEARCHED, Database, Entity, domain_part
from framework.gbc.environments.multiwoz.dataset.values import DONTCARE, UNKNOWN

_SIMILAR = 90
"""Per cent of two texts that are taken for the same."""
_FUZZY = {
    "hotel": {"name"},
    "attraction": {"name"},
    "restaurant": {"name", "food"},
    "train": {"departure", "destination"},
}
_DONTCARE = {"dontcare", "not mentioned", "don't care", "dont care", "do n't care", "do not care"}

_TYPES = {
    "swimming pool": "swimmingpool",
    "mutliple sports": "multiple sports",
    "night club": "nightclub",
    "guest house": "guesthouse",
}
_FOODS = {
    **{"eriterean": "mediterranean", "brazilian": "portuguese", "portugese": "portuguese", "sea food": "seafood"},
    **{"modern american": "north american", "americas": "north american", "intalian": "italian", "italain": "italian"},
    **{"asian or oriental": "asian", "english": "british", "australasian": "australian", "gastropod": "gastropub"},
    **{"brutish": "british", "bristish": "british", "europeon": "european"},
}
_NAMES = {
    **{"hotel du vin bistro": "hotel du vin and bistro", "nando's": "nandos", "caffee uno": "caffe uno"},
    **{"the river bar and grill": "the river bar steakhouse and grill", "cafe uno": "caffe uno"},
    **{"city center b and b": "city center north b and b", "acorn house": "acorn guest house"},
    **{"rosa's": "rosas bed and breakfast", "restaurant called two two": "restaurant two two"},
    **{"restaurant 2 two": "restaurant two two", "restaurant two 2": "restaurant two two"},
    **{"restaurant 2 2": "restaurant two two", "restaurant 1 7": "restaurant one seven"},
    **{"restaurant 17": "restaurant one seven", "lime house": "limehouse", "cityrooms": "cityroomz"},
    **{"whale of time": "whale of a time", "huntingdon hotel": "huntingdon marriott hotel"},
    **{"holiday inn exlpress, cambridge": "express by holiday inn cambridge"},
    **{"university hotel": "university arms hotel", "bridge house": "bridge guest house"},
    **{"arbury guesthouse and lodge": "arbury lodge guesthouse", "arbury guesthouse": "arbury lodge guesthouse"},
    **{"nandos in the city centre": "nandos city centre", "broughton gallery": "broughton house gallery"},
    **{"scudamores punt co": "scudamores punting co", "the junction": "junction theatre"},
    **{"cambridge botanic gardens": "cambridge university botanic gardens"},
    **{"the botanical gardens at cambridge university": "cambridge university botanic gardens"},
    **{"trinity street college": "trinity college", "christ college": "christ's college"},
    **{"christs": "christ's college", "parkside pools": "parkside swimming pool"},
    **{"history of science museum": "whipple museum of the history of science"},
    **{"cafe jello museum": "cafe jello gallery"},
}
_TIMES = {
    **{"afternoon": "13:00", "lunch": "12:00", "noon": "12:00", "mid-day": "12:00", "around lunch time": "12:00"},
    **{"morning": "08:00", "seven o'clock tomorrow evening": "07:00", "three forty five p.m": "15:45"},
    **{"one thirty p.m.": "13:30", "six fourty five": "06:45", "eight thirty": "08:30"},
}


class StandardDatabase(Database):
    """A release's database with the standardised evaluation's queries.

    Args:
        tables: as `Database` takes them.
    """

    def __init__(self, tables: JsonDict) -> None:
        super().__init__(tables)
        self._found = lru_cache(maxsize=4096)(self._query_uncached)

    def query(self, domain: str, constraints: Mapping[str, str]) -> tuple[Entity, ...]:
        """The entities that meet a goal's constraints, in the order of the table.

        Args:
            domain: one without a table has no entities.
            constraints: by slot without its domain, normalised.
        """
        fuzzy = _FUZZY.get(domain, set())
        found = super().query(domain, {slot: value for slot, value in constraints.items() if slot not in fuzzy})
        for slot in fuzzy & constraints.keys():
            wanted = constraints[slot]
            if wanted != DONTCARE:
                found = tuple(each for each in found if _fits(domain, slot, each.texts.get(slot, UNKNOWN), wanted))
        return found

    def query_state(self, domain: str, state: Mapping[str, str]) -> tuple[Entity, ...]:
        """The entities that a state finds, in the order of the table.

        Args:
            domain: one without a table has no entities.
            state: a belief state, the values as they were predicted.
        """
        if domain not in SEARCHED:
            return ()
        return self._found(domain, tuple(sorted(domain_part(state, domain).items())))

    def _query_uncached(self, domain: str, constraints: tuple[tuple[str, str], ...]) -> tuple[Entity, ...]:
        columns = {name for entity in self.entities[domain][:1] for name in entity.texts}
        found = self.entities[domain]
        for slot, value in constraints:
            if slot in columns and value not in _DONTCARE:
                found = tuple(each for each in found if _fits(domain, slot, each.texts.get(slot, UNKNOWN), value))
        return found


def standard_value(slot: str, value: str) -> str:
    """A predicted value as the standardised evaluation spells it.

    Args:
        slot: without its domain.
        value: as it was predicted.
    """
    text = value.strip().lower()
    if slot in ("name", "departure", "destination"):
        text = text.replace("&", " and ").replace("  ", " ").replace(" '", "'")
        return _NAMES.get(text, text)
    if slot == "food":
        return _FOODS.get(text, text)
    if slot == "type":
        return _TYPES.get(value, value)
    if slot in ("arriveby", "leaveat"):
        return _time(text)
    return "yes" if slot in ("parking", "internet") and value == "free" else value


def similarity(one: str, other: str) -> int:
    """Per cent by which the shorter of two texts is like a part of the other, as fuzzywuzzy's `partial_ratio`."""
    short, long = (one, other) if len(one) <= len(other) else (other, one)
    if not short:
        return 0
    best = 0.0
    for place, start, _ in SequenceMatcher(None, short, long).get_matching_blocks():
        begin = max(0, start - place)
        best = max(best, SequenceMatcher(None, short, long[begin : begin + len(short)]).ratio())
    return 100 if best > 0.995 else round(100 * best)


@lru_cache(maxsize=1 << 16)
def _fits(domain: str, slot: str, known: str, value: str) -> bool:
    if known == UNKNOWN:
        return True
    wanted = standard_value(slot, value)
    if slot == "arriveby":
        return _minutes(known) <= _minutes(wanted)
    if slot == "leaveat":
        return _minutes(known) >= _minutes(wanted)
    return similarity(known, wanted) >= _SIMILAR if slot in _FUZZY[domain] else known == wanted


def _minutes(time: str) -> int:
    """Since midnight; 0 for what is not a time."""
    match = re.match(r"(\d\d):(\d\d)", time)
    return 0 if match is None else int(match[1]) * 60 + int(match[2])


def _time(text: str) -> str:
    """`HH:MM` of words, of halves of a day, and of digits alone."""
    if text in _TIMES:
        return _TIMES[text]
    if text.startswith("one o'clock p.m"):
        return "13:00"
    if text.startswith("ten o'clock a.m"):
        return "10:00"
    text = text[3:] if text.startswith("by") else text
    text = re.sub(r"^af(?:t)?er", "", text).strip()
    half = re.search(r"([ap])(?:m|\.m\.)$", text)
    text = text[: half.start()].strip() if half else text
    if half and half[1] == "p" and re.fullmatch(r"\d+(?::[^:]*)?", text):
        hour, _, minute = text.partition(":")
        return f"{int(hour) + 12}:{minute or '00'}"
    text = text[:-1] if text[-1:] in (".", ",", "?") else text
    if not text:
        return "00:00"
    if text.isdigit():
        return f"{text[:2]}:{text[2:]}" if len(text) == 4 else f"{text.zfill(2)}:00"
    text = "".join(text.split(" ")) if ":" in text else text
    return text.zfill(5) if re.fullmatch(r".:..", text) else text
