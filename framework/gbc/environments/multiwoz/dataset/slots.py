"""The vocabulary of MultiWOZ: domains, the slots of a belief state, and what users ask for."""

import re

from framework.core.errors import DataError

DOMAINS = ("attraction", "hotel", "restaurant", "taxi", "train")
"""The domains that are tracked. Wu et al. 2019 (TRADE) leave out hospital and police, which no test dialogue has."""

UNTRACKED_DOMAINS = ("bus", "hospital", "police")

SLOTS = {
    "attraction": ("area", "name", "type"),
    "hotel": (
        "area",
        "book day",
        "book people",
        "book stay",
        "internet",
        "name",
        "parking",
        "pricerange",
        "stars",
        "type",
    ),
    "restaurant": ("area", "book day", "book people", "book time", "food", "name", "pricerange"),
    "taxi": ("arriveby", "departure", "destination", "leaveat"),
    "train": ("arriveby", "book people", "day", "departure", "destination", "leaveat"),
}
"""The 30 slots of a state (Wu et al. 2019), in the spelling of MultiWOZ 2.4's scripts (Ye et al. 2022)."""

STATE_SLOTS = tuple(f"{domain}-{slot}" for domain, slots in SLOTS.items() for slot in slots)

UNTRACKED_SLOTS = ("train-book ticket",)
"""Slots that releases have and nobody tracks (Wu et al. 2019)."""

REQUESTABLE = ("address", "phone", "postcode", "reference", "trainid")
"""What Success asks for (Budzianowski et al. 2018; Nekvinda & Dušek 2021)."""

_ATTRIBUTES = {
    "addr": "address",
    "post": "postcode",
    "ref": "reference",
    "fee": "entrancefee",
    "ticket": "price",
    "time": "duration",
    "leave": "leaveat",
    "arrive": "arriveby",
    "id": "trainid",
    "cartype": "car",
    "dest": "destination",
    "depart": "departure",
    "open": "openhours",
}

_SPELLINGS = {re.sub(r"[\W_]", "", name): name for name in STATE_SLOTS}


def slot_name(text: str, *, domain: str = "") -> str:
    """The slot of a text such as `hotel-book day`, `Train_arriveBy` or, with a domain, `bookpeople`.

    Raises:
        DataError: no slot of a state.
    """
    key = re.sub(r"[\W_]", "", text.lower())
    for spelling in (key, domain + key):
        if spelling in _SPELLINGS:
            return _SPELLINGS[spelling]
    hint = f"the slots of {domain} are {', '.join(SLOTS[domain])}" if domain in SLOTS else f"domains: {DOMAINS}"
    raise DataError(f"unknown slot {f'{domain}-{text}' if domain else text!r}", hint=hint)


def is_untracked(domain: str, slot: str) -> bool:
    """Whether a release's label belongs to no slot that is tracked, though its name is known."""
    return domain in UNTRACKED_DOMAINS or f"{domain}-{slot}" in UNTRACKED_SLOTS


def attribute_name(text: str, *, domain: str = "") -> str:
    """What is asked for or told, in one spelling: `Addr`, `entrance fee`, `leaveAt` to `address`, `entrancefee`, ...

    Dialogue acts, goals and databases spell it in three ways. An act's `Price` is a ticket's price of trains, a price
    range of the others.
    """
    key = re.sub(r"[\W_]", "", text.lower())
    if key == "price" and domain in ("hotel", "restaurant"):
        return "pricerange"
    if key == "price" and domain == "attraction":
        return "entrancefee"
    return _ATTRIBUTES.get(key, key)


def domain_of(slot: str) -> str:
    """`hotel` of `hotel-book day`."""
    return slot.partition("-")[0]
