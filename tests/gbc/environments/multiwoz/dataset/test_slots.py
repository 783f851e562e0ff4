"""The vocabulary: spellings of slots and attributes."""

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.dataset.slots import STATE_SLOTS, attribute_name, is_untracked, slot_name


def test_slots():
    assert len(STATE_SLOTS) == 30
    assert slot_name("hotel-book day") == slot_name("Hotel_BookDay") == slot_name("book day", domain="hotel")
    assert slot_name("train-arriveBy") == "train-arriveby"
    assert slot_name("train-leaveat", domain="hotel") == "train-leaveat"
    for text, domain in (("area", ""), ("stars", "restaurant"), ("hotel-colour", "hotel"), ("", "")):
        with pytest.raises(DataError, match="unknown slot"):
            slot_name(text, domain=domain)
    assert is_untracked("train", "book ticket")
    assert is_untracked("police", "name")
    assert not is_untracked("hotel", "colour")


def test_attributes():
    assert [attribute_name(name) for name in ("Addr", "entrance fee", "leaveAt", "trainID", "Id", "car type")] == [
        "address",
        "entrancefee",
        "leaveat",
        "trainid",
        "trainid",
        "car",
    ]
    assert [attribute_name("Price", domain=domain) for domain in ("hotel", "train", "attraction")] == [
        "pricerange",
        "price",
        "entrancefee",
    ]
