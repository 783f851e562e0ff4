"""The standardised evaluation's queries and spellings, by hand."""

import pytest

from framework.gbc.environments.multiwoz.standard_queries import StandardDatabase, similarity, standard_value


def hotel(name: str, area: str, kind: str, stars: str) -> dict[str, str]:
    return {"id": name, "name": name, "area": area, "type": kind, "stars": stars, "internet": "yes"}


TABLES = {
    "hotel": [
        hotel("acorn guest house", "north", "guesthouse", "4"),
        hotel("the lensfield hotel", "south", "hotel", "3"),
    ],
    "attraction": [{"id": "1", "name": "jesus college", "area": "?", "type": "college"}],
    "restaurant": [
        {"id": "1", "name": "darrys cookhouse", "area": "centre", "food": "modern european"},
        {"id": "2", "name": "eraina", "area": "centre", "food": "european"},
    ],
    "train": [
        {"trainID": "TR1", "departure": "london kings cross", "leaveAt": "09:15", "arriveBy": "10:15", "day": "monday"},
        {"trainID": "TR2", "departure": "cambridge", "leaveAt": "11:15", "arriveBy": "12:15", "day": "monday"},
    ],
    "taxi": {"taxi_colors": [], "taxi_types": []},
}


@pytest.mark.parametrize(
    ("domain", "state", "expected"),
    [
        ("hotel", {"hotel-type": "guest house"}, ["acorn guest house"]),
        # Only the words that the evaluation corrects are corrected.
        ("hotel", {"hotel-area": "the north"}, []),
        ("hotel", {"hotel-internet": "free", "hotel-stars": "4"}, ["acorn guest house"]),
        ("hotel", {"hotel-name": "lensfield hotel"}, ["the lensfield hotel"]),
        ("hotel", {"hotel-area": "do n't care", "hotel-stay": "3"}, ["acorn guest house", "the lensfield hotel"]),
        ("hotel", {"hotel-area": ""}, []),
        ("attraction", {"attraction-area": "west"}, ["jesus college"]),
        ("attraction", {"attraction-type": "colleges"}, []),
        ("restaurant", {"restaurant-food": "european"}, ["darrys cookhouse", "eraina"]),
        ("restaurant", {"restaurant-food": "modern european"}, ["darrys cookhouse", "eraina"]),
        ("train", {"train-leaveat": "after 9:30"}, ["tr2"]),
        ("train", {"train-arriveby": "10.15"}, []),
        ("train", {"train-arriveby": "11 : 00", "train-departure": "london king's cross"}, ["tr1"]),
        ("taxi", {"taxi-departure": "cambridge"}, []),
    ],
)
def test_what_a_predicted_state_finds(domain, state, expected):
    assert [entity.name for entity in StandardDatabase(TABLES).query_state(domain, state)] == expected


def test_goals_find_similar_foods_too():
    database = StandardDatabase(TABLES)
    assert len(database.query("restaurant", {"food": "european", "area": "centre"})) == 2
    assert len(database.query("restaurant", {"food": "dontcare"})) == 2
    assert len(database.query("restaurant", {"food": "thai"})) == 0


@pytest.mark.parametrize(
    ("slot", "value", "expected"),
    [
        ("leaveat", "one o'clock p.m.", "13:00"),
        ("leaveat", "by 9:15", "09:15"),
        ("leaveat", "5:45pm", "17:45"),
        ("leaveat", "5pm", "17:00"),
        ("leaveat", "1730", "17:30"),
        ("leaveat", "9", "09:00"),
        ("leaveat", "", "00:00"),
        ("leaveat", "noon", "12:00"),
        ("leaveat", "soon", "soon"),
        ("food", "Sea Food", "seafood"),
        ("name", "Nando 's", "nandos"),
        ("name", "a & b", "a and b"),
        ("area", "Centre", "Centre"),
    ],
)
def test_spellings(slot, value, expected):
    assert standard_value(slot, value) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("european", "modern european", 100),
        ("abcd", "xxabcdxx", 100),
        ("abcd", "abxd", 75),
        ("abc", "", 0),
        ("a", "b", 0),
    ],
)
def test_similarity(one, other, expected):
    assert similarity(one, other) == similarity(other, one) == expected
