"""What an answer tells: placeholders such as `[hotel_phone]`, and in plain text the values themselves.

The published evaluations read placeholders only (Budzianowski et al. 2018; Nekvinda & Dušek 2021). Language models
answer in plain words, so values are found too (ours): names and addresses by the database, the rest by its form.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from framework.gbc.environments.multiwoz.dataset.database import Database, Entity
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, attribute_name
from framework.gbc.environments.multiwoz.dataset.values import name_key, plain_text

_PLACEHOLDER = re.compile(r"\[([a-z]+)(?:[_ ]([a-z_ ]+))?\]", re.IGNORECASE)
_NAMED = ("attraction", "hotel", "restaurant")
_ENDS = r"street|road|lane|way|hill|avenue|square|passage|parade|place|terrace|row"

# By attribute, whatever the domain; an attribute of one domain only says so by its name.
_FORMS = {
    "reference": r"\b(?=[0-9]*[A-Z])[A-Z0-9]{8}\b",
    "trainid": r"(?i)\btr\d{4}\b",
    "phone": r"\b\d{5}\s?\d{5,6}\b",
    "address": rf"(?i)\b\d+\w?,? \w+ (?:{_ENDS})\b",
    "price": r"(?i)[£$]\s?\d|\d+(?:\.\d+)? (?:gbp|pounds?)\b",
    "entrancefee": r"(?i)\bfree\b|[£$]\s?\d|\d+(?:\.\d+)? (?:gbp|pounds?)\b|\b(?:entrance|admission) fee\b",
    "duration": r"(?i)\b\d+ ?(?:minutes?|mins?)\b",
    "leaveat": r"\b\d{1,2}:\d\d\b",
    "arriveby": r"\b\d{1,2}:\d\d\b",
    "area": r"(?i)\b(?:north|east|south|west|cent(?:re|er))\b",
    "pricerange": r"(?i)\b(?:cheap|inexpensive|moderate(?:ly)?|expensive)\b",
    "stars": r"(?i)\b(?:\d|zero|one|two|three|four|five)[ -]stars?\b",
    "internet": r"(?i)\b(?:wi-?fi|internet)\b",
    "parking": r"(?i)\bparking\b",
}


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A part of an answer.

    Attributes:
        attribute: what it tells, such as `name` or `phone`.
        domain: of what; empty where the text does not say.
        entities: ids of the rows that a name or a train's number stands for; empty for a placeholder.
        start, stop: characters of the answer.
    """

    attribute: str
    domain: str
    entities: tuple[str, ...]
    start: int
    stop: int


class MentionReader:
    """Finds mentions in answers.

    Args:
        database: whose names, addresses, types and cars are known.
        plain: find values too; otherwise placeholders only, as the published evaluations do.
    """

    def __init__(self, database: Database, *, plain: bool = True) -> None:
        self._plain = plain
        entities = [entity for domain in _NAMED for entity in database.entities[domain]]
        self._names = _Lexicon(
            (spelling, entity) for entity in entities for spelling in _spellings(entity.values["name"])
        )
        self._addresses = _Lexicon(
            (text, entity)
            for entity in entities
            for text in [plain_text(entity.texts.get("address", "").partition(",")[0])]
            if " " in text
        )
        self._trains = {entity.id.lower(): entity.id for entity in database.entities["train"]}
        self._forms = {name: re.compile(form) for name, form in _FORMS.items()}
        prefixes = {entity.values["postcode"][:2] for entity in entities if len(entity.values.get("postcode", "")) > 4}
        start = "|".join(rf"{first}[.\s]?{second}" for first, second in sorted(prefixes))
        self._forms["postcode"] = re.compile(rf"(?i)\b(?:{start})[.\s]?\d{{1,2}}[\s,]*\d[.\s]?[a-z][.\s]?[a-z]\b")
        for name, values in (
            ("type", {entity.texts["type"] for entity in entities if entity.domain != "restaurant"}),
            ("food", {entity.texts["food"] for entity in database.entities["restaurant"]}),
            ("car", set(database.cars)),
        ):
            spellings = "|".join(map(_pattern, sorted(map(plain_text, values), key=len, reverse=True)))
            self._forms[name] = re.compile(rf"(?i)\b(?:{spellings})s?\b")

    def read(self, text: str) -> tuple[Mention, ...]:
        """The mentions of an answer, in the order of the kinds."""
        found = [_placeholder(match) for match in _PLACEHOLDER.finditer(text)]
        if not self._plain:
            return tuple(found)
        text = _PLACEHOLDER.sub(lambda match: " " * len(match[0]), text)
        found += self._names.find(text, "name") + self._addresses.find(text, "address")
        for attribute, form in self._forms.items():
            for match in form.finditer(text):
                train = self._trains.get(match[0].lower()) if attribute == "trainid" else None
                found.append(
                    Mention(
                        attribute=attribute,
                        domain="train" if attribute in ("trainid", "duration") else "",
                        entities=() if train is None else (train,),
                        start=match.start(),
                        stop=match.end(),
                    )
                )
        return tuple(found)


class _Lexicon:
    """Spellings of something that entities have, found as whole words."""

    def __init__(self, pairs: Iterable[tuple[str, Entity]]) -> None:
        self._entities: dict[str, dict[str, Entity]] = {}
        for text, entity in pairs:
            self._entities.setdefault(text, {})[entity.id] = entity
        spellings = "|".join(map(_pattern, sorted(self._entities, key=len, reverse=True)))
        # Without a word nothing may match: an empty alternative would match everywhere.
        self._form = re.compile(rf"(?i)(?<!\w)(?:{spellings})(?!\w)" if spellings else r"(?!)")

    def find(self, text: str, attribute: str) -> list[Mention]:
        """The mentions, one for each domain that has such an entity."""
        found: list[Mention] = []
        for match in self._form.finditer(text):
            entities = self._entities.get(plain_text(match[0]), {}).values()
            for domain in dict.fromkeys(entity.domain for entity in entities):
                ids = tuple(entity.id for entity in entities if entity.domain == domain)
                found.append(
                    Mention(attribute=attribute, domain=domain, entities=ids, start=match.start(), stop=match.end())
                )
        return found


def _placeholder(match: re.Match[str]) -> Mention:
    first, rest = match[1].lower(), (match[2] or "").lower()
    domain = first if first in DOMAINS and rest else ""
    name = rest if rest and (domain or first == "value") else f"{first} {rest}".strip()
    attribute = attribute_name(name, domain=domain)
    return Mention(attribute=attribute, domain=domain, entities=(), start=match.start(), stop=match.end())


def _spellings(name: str) -> list[str]:
    """A name, and what is left without "the" and its kind, where that is not an everyday word."""
    short = [name_key(name), name.removeprefix("the ")]
    return [name, *(text for text in short if text != name and (" " in text or len(text) > 5))]


def _pattern(text: str) -> str:
    """A regular expression for normalised text as users write it: apostrophes, hyphens, `&`, `b&b`, `center`."""
    text = text.replace("bed and breakfast", "bedandbreakfast").replace("guest house", "guesthouse")
    spellings = {
        "bedandbreakfast": r"(?:bed and breakfast|b ?(?:&|and) ?b)",
        "guesthouse": r"guest[\s-]?house",
        "and": "(?:and|&)",
        "centre": "cent(?:re|er)",
        "theatre": "theat(?:re|er)",
        "swimmingpool": r"swimming\s?pool",
        "concerthall": r"concert\s?hall",
        "nightclub": r"night\s?club",
        "mutliple": "mu(?:lti|tli)ple",
        "archaeology": "archa(?:eo|e)logy",
    }
    words: list[str] = []
    for word in text.split():
        known = spellings.get(word)
        if known is None:
            known = rf"{re.escape(word[:-1])}\s?['’]?\s?s['’]?" if word.endswith("s") else re.escape(word)
        words.append(known)
    return r"[\s-]+".join(words)
