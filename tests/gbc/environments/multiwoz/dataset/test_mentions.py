"""What answers tell, in placeholders and in plain words."""

import pytest

from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.mentions import MentionReader


def told(database: Database, text: str) -> set[tuple[str, str, str]]:
    return {(each.attribute, each.domain, text[each.start : each.stop]) for each in MentionReader(database).read(text)}


@pytest.mark.parametrize(
    ("text", "attribute", "domain"),
    [
        ("[hotel_phone]", "phone", "hotel"),
        ("[value_name]", "name", ""),
        ("[name]", "name", ""),
        ("[train_id]", "trainid", "train"),
        ("[ref]", "reference", ""),
        ("[attraction_entrance fee]", "entrancefee", "attraction"),
        ("[entrance fee]", "entrancefee", ""),
        ("[Taxi_car]", "car", "taxi"),
    ],
)
def test_placeholders(database: Database, text: str, attribute: str, domain: str):
    assert told(database, f"It is {text}s .") == {(attribute, domain, text)}


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("Try the Acorn guesthouse!", {("hotel", "0")}),
        ("ALPHA-MILTON Guest House", {("hotel", "1")}),
        ("the Lensfield or acorn guest house", {("hotel", "2"), ("hotel", "0")}),
        ("Christ 's College, christs college", {("attraction", "20")}),
        ("I will ask at the restaurant", set()),
        ("Ask Restaurant", {("restaurant", "11")}),
        ("acornguest house", set()),
        ("train TR0002 or tr0003", {("train", "TR0002"), ("train", "TR0003")}),
        ("train TR9999", set()),
    ],
)
def test_names(database: Database, text: str, entities: set):
    found = MentionReader(database).read(text)
    assert {(each.domain, id) for each in found for id in each.entities if each.attribute != "address"} == entities


@pytest.mark.parametrize(
    ("text", "attribute", "told_text"),
    [
        ("Your reference is BMUKPTG6.", "reference", "BMUKPTG6"),
        ("Call 01223 353888 now", "phone", "01223 353888"),
        ("It is in cb 2 , 3 b.u", "postcode", "cb 2 , 3 b.u"),
        ("at 154 Chesterton Road", "address", "154 Chesterton Road"),
        ("on saint andrew 's street", "address", "saint andrew 's street"),
        ("It takes 17 minutes", "duration", "17 minutes"),
        ("Tickets are 4.40 GBP", "price", "4.40 GBP"),
        ("Entrance is free", "entrancefee", "free"),
        ("There is free wifi", "internet", "wifi"),
        ("a black Toyota will come", "car", "black Toyota"),
        ("it has 4 stars", "stars", "4 stars"),
        ("a swimming pool", "type", "swimming pool"),
        ("they serve italian food", "food", "italian"),
    ],
)
def test_values(database: Database, text: str, attribute: str, told_text: str):
    assert told_text in {each for name, _, each in told(database, text) if name == attribute}


def test_what_is_no_mention(database: Database):
    assert told(database, "How many people, and which day ? RESERVED, 12345678, [unfinished") == {
        ("reference", "", "RESERVED")
    }
    assert told(database, "") == set()
