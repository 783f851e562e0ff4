"""Queries by hand, over three hotels and three trains."""

import pytest

from framework.core.errors import DataError
from framework.gbc.environments.multiwoz.dataset.database import Database


@pytest.mark.parametrize(
    ("domain", "constraints", "expected"),
    [
        ("hotel", {}, ["0", "1", "2"]),
        ("hotel", {"area": "north", "type": "guest house"}, ["0", "1"]),
        ("hotel", {"area": "north", "stars": "4 stars"}, ["0"]),
        ("hotel", {"area": "dontcare", "stars": "3"}, ["1", "2"]),
        ("hotel", {"area": "south|west"}, ["2"]),
        ("hotel", {"area": "west"}, []),
        ("hotel", {"name": "alpha milton"}, ["1"]),
        ("hotel", {"name": "Lensfield Hotel", "book day": "friday"}, ["2"]),
        ("hotel", {"parking": "free"}, ["0", "2"]),
        ("hotel", {"no column": "x"}, ["0", "1", "2"]),
        ("attraction", {"type": "swimming pool"}, ["21"]),
        ("attraction", {"name": "christ college"}, ["20"]),
        ("attraction", {"pricerange": "cheap"}, ["20", "21"]),  # unknown to the database
        ("restaurant", {"food": "italian", "pricerange": "expensive"}, ["10"]),
        ("train", {"departure": "cambridge", "destination": "ely", "leaveat": "9:50"}, ["TR0001", "TR0002"]),
        ("train", {"destination": "ely", "leaveat": "09:51"}, ["TR0002"]),
        ("train", {"arriveby": "12:06"}, ["TR0001"]),
        ("train", {"arriveby": "12:07", "day": "fri"}, ["TR0001", "TR0002"]),
        ("train", {"leaveat": "whenever", "day": "monday"}, []),
        ("taxi", {"departure": "x"}, []),
    ],
)
def test_queries(database: Database, domain: str, constraints: dict, expected: list[str]):
    assert [entity.id for entity in database.query(domain, constraints)] == expected


def test_states_and_entities(database: Database):
    (found,) = database.query_state("hotel", {"hotel-area": "south", "train-day": "friday", "hotel-book stay": "2"})
    assert (found.name, found.texts["name"], found.values["phone"]) == (
        "the lensfield hotel",
        "the lensfield hotel",
        "01223355017",
    )
    (found,) = database.query("train", {"destination": "norwich"})
    assert found.name == "tr0003"
    assert "red skoda" in database.cars


def test_bad_tables():
    for tables in ({}, {name: [{}] for name in ("hotel", "attraction", "restaurant", "train")}, {"attraction": 1}):
        with pytest.raises(DataError, match="the databases have not the form"):
            Database(tables)
