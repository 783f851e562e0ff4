"""Dialogue acts of a release: what the user asks for, and answers with placeholders for values."""

from collections.abc import Mapping, Sequence
from typing import cast

from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, attribute_name

_BOOKABLE = ("hotel", "restaurant", "train")


class ActReader:
    """Follows the acts of one dialogue.

    Args:
        asked: what the goal asks for, by domain.
    """

    def __init__(self, asked: Mapping[str, Sequence[str]]) -> None:
        self._asked = asked
        self._domain = next(iter(asked), "")
        self._booked: tuple[str, ...] = ()

    def read(self, user: object, system: object, booked: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
        """What the user requests in a turn, and the domain that the answer's acts without a domain are about.

        Acts of a booking name no domain: it is the one that is newly booked, or else the last one spoken of.

        Args:
            user: the acts of the user, by `Domain-Act` a list of [slot, value]; anything else where there are none.
            system: those of the answer.
            booked: domains with a booking after the answer.
        """
        for acts in (user, system):
            spoken = [name for name, _ in _acts(acts) if name in DOMAINS]
            self._domain = spoken[-1] if spoken else self._domain
        new = [domain for domain in booked if domain not in self._booked and domain in _BOOKABLE]
        self._booked = booked
        current = new[0] if new else self._domain
        if isinstance(user, dict):
            pairs = [
                (domain if domain in DOMAINS else current, slot)
                for (domain, act), slots in _acts_by_kind(cast("object", user))
                for slot, _ in slots
                if act == "request"
            ]
        else:
            pairs = [
                (domain if domain in DOMAINS else current, slot)
                for (domain, act), slots in _acts_by_kind(system)
                for slot, value in slots
                if act != "request" and value not in ("", "?", "none")
            ]
            pairs = [
                (domain, slot)
                for domain, slot in pairs
                if attribute_name(slot, domain=domain) in self._asked.get(domain, ())
            ]
        names = (f"{domain}-{attribute_name(slot, domain=domain)}" for domain, slot in pairs if domain)
        return tuple(dict.fromkeys(names)), current


def delexicalised(text: str, spans: object, domain: str) -> str | None:
    """An answer with `[domain_attribute]` in the place of its annotated values.

    Args:
        text: the answer, its tokens between spaces.
        spans: of the annotation: [act, slot, value, first token, last token]; None where there is none.
        domain: that spans of a booking are about.
    """
    if not isinstance(spans, list):
        return None
    tokens = text.split()
    for act, slot, value, first, last in sorted(cast("list[_Span]", spans), key=lambda span: span[3], reverse=True):
        # Some spans are off, or overlap with one that is replaced already.
        if " ".join(tokens[first : last + 1]).lower() != str(value).lower():
            continue
        named = str(act).partition("-")[0].lower()
        named = named if named in DOMAINS else domain
        tokens[first : last + 1] = [f"[{named}_{attribute_name(slot, domain=named)}]"]
    return " ".join(tokens)


_Span = tuple[str, str, object, int, int]
"""[act, slot, value, first token, last token]; a span of another form is an error of the dialogue."""


def _acts(acts: object) -> list[tuple[str, str]]:
    return [key for key, _ in _acts_by_kind(acts)]


def _acts_by_kind(acts: object) -> list[tuple[tuple[str, str], list[tuple[str, str]]]]:
    """((domain, act), its slots and values) in lower case; none for "No Annotation"."""
    if not isinstance(acts, dict):
        return []
    found: list[tuple[tuple[str, str], list[tuple[str, str]]]] = []
    for name, slots in cast("dict[str, list[tuple[object, object]]]", acts).items():
        domain, _, act = name.lower().partition("-")
        found.append(((domain, act), [(str(slot), str(value)) for slot, value in slots]))
    return found
