"""Values: each rule of normalisation by hand."""

import pytest

from framework.gbc.environments.multiwoz.dataset.values import minutes, name_key, normalise, plain_text, same_value


@pytest.mark.parametrize(
    ("slot", "value", "expected"),
    [
        ("hotel-area", "not mentioned", ""),
        ("hotel-area", " None ", ""),
        ("hotel-area", "do n't care", "dontcare"),
        ("hotel-area", "don't care", "dontcare"),
        ("restaurant-food", "any", "dontcare"),
        ("hotel-type", "guest house", "guesthouse"),
        ("hotel-type", "hotel|guest house", "hotel|guesthouse"),
        ("attraction-type", "swimming pool>theater", "swimmingpool|theatre"),
        ("attraction-type", "mutliple sports", "multiplesports"),
        ("attraction-type", "Concert Hall", "concerthall"),
        ("hotel-name", "Acorn Guesthouse", "acorn guest house"),
        ("hotel-name", "a & b guest house", "a and b guest house"),
        ("hotel-name", "city centre north b&b", "city centre north bed and breakfast"),
        ("attraction-name", "king 's college", "kings college"),
        ("attraction-name", "queens' college", "queens college"),
        ("attraction-name", "christ s college", "christs college"),
        ("attraction-name", "christ college", "christs college"),
        ("restaurant-name", "cafe uno", "caffe uno"),
        ("train-leaveat", "9:00", "09:00"),
        ("train-leaveat", "after 15:45", "15:45"),
        ("train-arriveby", "5:45pm", "17:45"),
        ("train-arriveby", "12 am", "00:00"),
        ("train-arriveby", "12:30 p.m.", "12:30"),
        ("restaurant-book time", "1500", "15:00"),
        ("taxi-leaveat", "noon", "12:00"),
        ("taxi-leaveat", "24:30", "24:30"),
        ("taxi-leaveat", "after lunch", "12:00"),
        ("taxi-leaveat", "whenever", "whenever"),
        ("hotel-stars", "4 stars", "4"),
        ("hotel-book people", "two", "2"),
        ("train-book people", "10", "10"),
        ("hotel-book day", "sat", "saturday"),
        ("train-day", "next friday", "friday"),
        ("train-day", "wendesday", "wednesday"),
        ("hotel-area", "city center", "centre"),
        ("hotel-area", "in the north", "north"),
        ("hotel-area", "north or south", "north or south"),
        ("hotel-parking", "free", "yes"),
        ("hotel-internet", "free internet", "yes"),
        ("hotel-pricerange", "moderately priced", "moderate"),
        ("restaurant-food", "portugese", "portuguese"),
        ("restaurant-food", "sea food", "seafood"),
        ("attraction-pricerange", "?", "?"),
    ],
)
def test_rules(slot: str, value: str, expected: str):
    assert normalise(slot, value) == expected
    assert normalise(slot, expected) == expected  # nothing changes the second time


def test_rules_stay_within_their_slot():
    assert normalise("attraction-name", "pool") == "pool"
    assert normalise("restaurant-name", "asian") == "asian"
    assert normalise("hotel-name", "free") == "free"


def test_right_values():
    assert same_value("hotel-name", "acorn", "acorn guest house")
    assert same_value("hotel-name", "the lensfield hotel", "lensfield")
    assert not same_value("hotel-name", "acorn", "alpha milton guest house")
    assert same_value("hotel-type", "guesthouse", "hotel|guesthouse")
    assert same_value("hotel-type", "guest house|hotel", "hotel|guesthouse")
    assert not same_value("hotel-type", "guesthouse|hotel", "hotel")
    assert not same_value("hotel-area", "", "north")
    # The end of a name counts in slots of names only.
    assert not same_value("attraction-type", "museum", "")
    assert not same_value("restaurant-food", "gallery food street", "gallery food")


def test_small_parts():
    assert name_key("the fitzwilliam museum") == "fitzwilliam"
    assert name_key("museum") == "museum"
    assert plain_text("St. John's,  Street!") == "st johns street"
    assert (minutes("24:08"), minutes("9:00"), minutes("dontcare")) == (1448, None, None)
