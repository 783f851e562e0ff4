"""A release of three dialogues, in the layout of MultiWOZ 2.1."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, read_dialogue
from framework.gbc.graph.trace import Step, Trace

TABLES: dict[str, Any] = {
    "hotel": [
        {"id": "0", "name": "acorn guest house", "area": "north", "type": "guesthouse", "stars": "4", "parking": "yes",
         "internet": "yes", "pricerange": "moderate", "address": "154 chesterton road", "phone": "01223353888",
         "postcode": "cb41da", "price": {"single": "50"}},
        {"id": "1", "name": "alpha-milton guest house", "area": "north", "type": "guesthouse", "stars": "3",
         "parking": "no", "internet": "no", "pricerange": "moderate", "address": "63 milton road",
         "phone": "01223311625", "postcode": "cb41xa"},
        {"id": "2", "name": "the lensfield hotel", "area": "south", "type": "hotel", "stars": "3", "parking": "yes",
         "internet": "yes", "pricerange": "expensive", "address": "53-57 lensfield road", "phone": "01223355017",
         "postcode": "cb21en"},
    ],
    "restaurant": [
        {"id": "10", "name": "caffe uno", "area": "centre", "food": "italian", "pricerange": "expensive",
         "type": "restaurant", "address": "32 Bridge Street City Centre", "phone": "01223448620", "postcode": "cb21uj"},
        {"id": "11", "name": "ask restaurant", "area": "centre", "food": "italian", "pricerange": "cheap",
         "type": "restaurant", "address": "12 Bridge Street City Centre", "phone": "01223364917", "postcode": "cb21uf"},
    ],
    "attraction": [
        {"id": "20", "name": "christ's college", "area": "centre", "type": "college", "pricerange": "?",
         "entrance fee": "free", "address": "saint andrew's street", "phone": "01223334900", "postcode": "cb23bu"},
        {"id": "21", "name": "abbey pool and astroturf pitch", "area": "east", "type": "swimmingpool",
         "pricerange": "?", "entrance fee": "?", "address": "pool way, whitehill road", "phone": "01223902088",
         "postcode": "cb58nt"},
    ],
    "train": [
        {"trainID": "TR0001", "departure": "cambridge", "destination": "ely", "day": "friday", "leaveAt": "09:50",
         "arriveBy": "10:07", "duration": "17 minutes", "price": "4.40 pounds"},
        {"trainID": "TR0002", "departure": "cambridge", "destination": "ely", "day": "friday", "leaveAt": "11:50",
         "arriveBy": "12:07", "duration": "17 minutes", "price": "4.40 pounds"},
        {"trainID": "TR0003", "departure": "cambridge", "destination": "norwich", "day": "friday", "leaveAt": "23:36",
         "arriveBy": "24:55", "duration": "79 minutes", "price": "17.60 pounds"},
    ],
    "taxi": {"taxi_colors": ["black", "red"], "taxi_types": ["toyota", "skoda"], "taxi_phone": ["^[0-9]{10}$"]},
}  # fmt: skip

EMPTY: dict[str, Any] = {
    "taxi": {"book": {"booked": []}, "semi": {"leaveAt": "", "destination": "", "departure": "", "arriveBy": ""}},
    "police": {"book": {"booked": []}, "semi": {}},
    "bus": {"book": {"booked": [], "people": ""}, "semi": {"day": ""}},
    "hospital": {"book": {"booked": []}, "semi": {"department": ""}},
    "restaurant": {"book": {"booked": [], "people": "", "day": "", "time": ""},
                   "semi": {"food": "", "pricerange": "", "name": "", "area": ""}},
    "hotel": {"book": {"booked": [], "people": "", "day": "", "stay": ""},
              "semi": {"name": "", "area": "", "parking": "", "pricerange": "", "stars": "", "internet": "",
                       "type": ""}},
    "attraction": {"book": {"booked": []}, "semi": {"type": "", "name": "", "area": ""}},
    "train": {"book": {"booked": [], "people": "", "ticket": ""},
              "semi": {"leaveAt": "", "destination": "", "day": "", "arriveBy": "", "departure": ""}},
}  # fmt: skip


def metadata(**labels: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a turn: by domain, slots to values; `book_day` for a booking's."""
    found = copy.deepcopy(EMPTY)
    for domain, values in labels.items():
        for slot, value in values.items():
            part = "book" if slot.startswith("book") else "semi"
            found[domain][part][slot.removeprefix("book_")] = value
    return found


def user(text: str, **acts: list[list[str]]) -> dict[str, Any]:
    return {"text": text, "metadata": {}, "dialog_act": {name.replace("_", "-"): each for name, each in acts.items()}}


def system(
    text: str, labels: dict[str, Any], spans: list[Any] | None = None, **acts: list[list[str]]
) -> dict[str, Any]:
    named = {name.replace("_", "-"): each for name, each in acts.items()}
    return {"text": text, "metadata": labels, "dialog_act": named, "span_info": spans or []}


HOTEL = {"area": "north", "type": "guest house", "stars": "not mentioned", "parking": "free"}
BOOKED = HOTEL | {
    "name": "Acorn Guesthouse", "book_day": "friday", "book_people": "2", "book_stay": "3",
    "booked": [{"name": "acorn guest house", "reference": "ABCD1234"}],
}  # fmt: skip

DATA: dict[str, Any] = {
    "MUL0001.json": {
        "goal": {
            "hotel": {"info": {"area": "north", "type": "guesthouse", "parking": "yes"}, "reqt": ["phone", "stars"],
                      "book": {"day": "friday", "people": "2", "stay": "3", "invalid": False}, "fail_info": {}},
            "taxi": {"info": {"leaveAt": "17:15"}, "reqt": ["car type", "phone"]},
            "police": {}, "message": ["..."], "topic": {"hotel": False},
        },
        "log": [
            user("I need a guest house in the north with parking .", Hotel_Inform=[["Area", "north"]]),
            system("Acorn Guest House is nice .", metadata(hotel=HOTEL),
                   [["Hotel-Recommend", "Name", "Acorn Guest House", 0, 2]]),
            user("Book it from Friday for 2 , 3 nights . What is the phone ?", Hotel_Request=[["Phone", "?"]]),
            system("Done , ABCD1234 . Call 01223353888 .", metadata(hotel=BOOKED),
                   [["Booking-Book", "Ref", "ABCD1234", 2, 2], ["Hotel-Inform", "Phone", "01223353888", 5, 5]],
                   Booking_Book=[["Ref", "ABCD1234"]], Hotel_Inform=[["Phone", "01223353888"]]),
            user("A taxi from there at 5:15 pm to caffe uno , which car ?", Taxi_Request=[["Car", "?"]]),
            system("A red skoda , 07123456789 .",
                   metadata(hotel=BOOKED, taxi={"leaveAt": "5:15 pm", "destination": "cafe uno",
                                                "departure": "acorn guesthouse",
                                                "booked": [{"phone": "07123456789", "type": "red skoda"}]}),
                   [["Taxi-Inform", "Car", "red skoda", 1, 2], ["Taxi-Inform", "Phone", "07123456789", 4, 4]]),
        ],
    },
    "SNG0002.json": {
        "goal": {"train": {"info": {"destination": "ely", "departure": "cambridge", "day": "friday",
                                    "leaveAt": "10:00"}, "reqt": ["trainID"]}},
        "log": [
            user("A train to Ely on Friday after 10:00 , please ."),
            system("TR0002 leaves at 11:50 .", metadata(train={"destination": "ely", "departure": "cambridge",
                                                               "day": "friday", "leaveAt": "10:00"})),
        ],
    },
    "SNG0003.json": {
        "goal": {"attraction": {"info": {"type": "college"}, "reqt": ["postcode"]}},
        "log": [
            user("Any college or pool ?"),
            system("Christ 's College , cb 23 bu .", metadata(attraction={"type": "college>swimming pool",
                                                                           "area": "do n't care"})),
        ],
    },
}  # fmt: skip


@pytest.fixture
def data() -> dict[str, Any]:
    """What `data.json` holds; the test's own copy."""
    return copy.deepcopy(DATA)


@pytest.fixture
def write_release(tmp_path: Path) -> Callable[..., Path]:
    """Writes a release's folder; files given by name replace its own, None leaves one out."""

    def write(folder: str = "MULTIWOZ", **changes: Any) -> Path:
        path = tmp_path / folder
        path.mkdir()
        files: dict[str, Any] = {
            "data": json.dumps(DATA),
            "valListFile": "SNG0002.json\n",
            "testListFile": "SNG0003.json\n",
            "ontology": "{}",
            **{f"{domain}_db": json.dumps(table) for domain, table in TABLES.items()},
            **changes,
        }
        for name, content in files.items():
            if content is not None:
                (path / f"{name}.json").write_text(content)
        return path

    return write


@pytest.fixture
def database() -> Database:
    return Database(TABLES)


@pytest.fixture
def dialogue() -> Dialogue:
    """The first one."""
    return read_dialogue("MUL0001.json", copy.deepcopy(DATA)["MUL0001.json"], split="train")


@pytest.fixture
def make_trace() -> Callable[..., Trace]:
    """A trace of one turn: the outputs by node, and the task."""

    def make(outputs: dict[str, str], *, failure: str | None = None, **task: Any) -> Trace:
        steps = tuple(
            Step(name=name, node=name, kind="agent", model="m", input_text="", input_ids=(), input_spans=(), blocks=(),
                 controls=(), output=text, output_ids=(), output_spans=(), finish="stop")
            for name, text in outputs.items()
        )  # fmt: skip
        return Trace(id="x", task=task, steps=steps, skipped=(), outputs=tuple(outputs), failure=failure)

    return make


@pytest.fixture
def real_data() -> Path:
    """The folder of real dialogues; the test is skipped where FRAMEWORK_DATA names none."""
    folder = os.environ.get("FRAMEWORK_DATA")
    if folder is None or not (Path(folder) / "multiwoz").is_dir():
        pytest.skip("FRAMEWORK_DATA names no folder with multiwoz")
    return Path(folder) / "multiwoz"
