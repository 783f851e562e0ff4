"""Verbal losses: words, values and places by hand."""

from collections.abc import Callable

import pytest

from framework.gbc.environments.multiwoz.dataset.database import Database
from framework.gbc.environments.multiwoz.losses import AnswerLoss, TurnLoss, state_loss
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import Place, VerbalLoss

EXPECTED = {"hotel-area": "north", "hotel-type": "hotel|guesthouse", "hotel-stars": "4", "train-day": "friday"}


def test_false_positives_false_negatives_and_wrong_values(make_trace: Callable[..., Trace]):
    outputs = {
        "hotel": "type=guest house; stars=3; colour=red; parking=none",
        "taxi": "leaveat=10:00",
        "responder": "Hi.",
    }
    found = state_loss(make_trace(outputs, expected=EXPECTED))
    # Wrong: stars. Extra: the colour and the taxi. Missing: the area and the day. Expected were 4.
    assert found.value == pytest.approx(5 / 6)
    assert found.text == (
        "hotel-stars should be '4', it was '3' (wrong value). "
        "colour=red was given, but colour is not a slot (false positive). "
        "taxi-leaveat=10:00 was given, but taxi-leaveat was not mentioned (false positive). "
        "hotel-area should be 'north', it was missing (false negative). "
        "train-day should be 'friday', it was missing (false negative)."
    )
    text = outputs["hotel"]
    assert found.places == (
        Place(step="hotel", start=text.index("3"), stop=text.index("3") + 1, expected="4"),
        Place(step="hotel", start=text.index("red"), stop=text.index("red") + 3),
        Place(step="taxi", start=8, stop=13),
        # What is missing is missing in all that the worker said; the train's did not run.
        Place(step="hotel", start=0, stop=len(text), weight=1.0),
    )


def test_one_agent_for_all_domains(make_trace: Callable[..., Trace]):
    right = "hotel-area=north; hotel-type=hotel; hotel-stars=4; train-day=fri"
    assert state_loss(make_trace({"agent": right}, expected=EXPECTED)) == VerbalLoss(value=0.0, text="")
    assert state_loss(make_trace({"agent": "none"}, expected={})) == VerbalLoss(value=0.0, text="")
    found = state_loss(make_trace({"agent": "none"}, expected=EXPECTED))
    assert (found.value, found.places) == (1.0, (Place(step="agent", start=0, stop=4, weight=4.0),))


def test_missed_requests_and_offers_that_do_not_fit(database: Database, make_trace: Callable[..., Trace]):
    loss = AnswerLoss(database)
    task = {"expected": {"hotel-area": "north"}, "requested": ["hotel-phone", "hotel-postcode"]}
    text = "The Lensfield Hotel, phone 01223355017."
    found = loss(make_trace({"hotel": "area=north", "responder": text}, **task))
    assert found.value == pytest.approx(2 / 3)
    assert found.text == (
        "The user asked for the postcode of the hotel, the answer does not tell it (missed request). "
        "'The Lensfield Hotel' was offered, but does not fit what the user wants of the hotel."
    )
    assert found.places == (Place(step="responder", start=0, stop=19),)
    right = "Acorn guest house: [hotel_phone], cb41da."
    assert loss(make_trace({"responder": right}, **task)) == VerbalLoss(value=0.0, text="")
    # The phone of a restaurant is none of a hotel.
    assert loss(make_trace({"responder": "[restaurant_phone] cb41da"}, **task)).value == 0.5
    assert loss(make_trace({"hotel": "area=north"}, **task)).value == 1.0
    nothing = {"expected": {}, "requested": []}
    assert loss(make_trace({"responder": "Hello!"}, **nothing)) == VerbalLoss(value=0.0, text="")


def test_places_that_the_user_named_may_be_spoken_of(database: Database, make_trace: Callable[..., Trace]):
    task = {"expected": {"hotel-area": "north", "taxi-destination": "lensfield hotel"}, "requested": []}
    assert AnswerLoss(database)(make_trace({"responder": "A taxi to the Lensfield Hotel."}, **task)).value == 0


def test_both_together(database: Database, make_trace: Callable[..., Trace]):
    task = {"expected": {"hotel-area": "north"}, "requested": ["hotel-phone"]}
    found = TurnLoss(database)(make_trace({"hotel": "area=south", "responder": "Sure."}, **task))
    assert found.value == 1.0
    assert found.text.count("wrong value") == found.text.count("missed request") == 1
    assert [place.step for place in found.places] == ["hotel"]
    found = TurnLoss(database)(make_trace({"hotel": "area=north", "responder": "Sure."}, **task))
    assert found.value == 0.5
