"""Dialogue acts: what is requested, of which domain, and answers with placeholders, by hand."""

from framework.gbc.environments.multiwoz.dataset.acts import ActReader, delexicalised


def test_requests_of_the_user_by_hand():
    reader = ActReader({"hotel": ("phone",)})
    user = {"Hotel-Request": [["Phone", "?"], ["Addr", "?"]], "Hotel-Inform": [["Area", "north"]]}
    assert reader.read(user, {}, ()) == (("hotel-phone", "hotel-address"), "hotel")
    # A booking names no domain: the one that is newly booked.
    assert reader.read({"Booking-Request": [["Ref", "?"]]}, {}, ("train",)) == (("train-reference",), "train")


def test_without_the_users_acts_the_answer_tells_what_the_goal_asks_for():
    reader = ActReader({"hotel": ("phone",), "train": ()})
    system = {"Hotel-Inform": [["Phone", "01223"], ["Addr", "a road"]], "Hotel-Request": [["Area", "?"]]}
    assert reader.read(None, system, ()) == (("hotel-phone",), "hotel")
    assert reader.read(None, {"Hotel-Inform": [["Phone", "none"]]}, ()) == ((), "hotel")
    assert reader.read("No Annotation", "No Annotation", ()) == ((), "hotel")


def test_an_answer_with_placeholders_by_hand():
    text = "The acorn house is in the north . Your number is 7GAW"
    spans = [
        ["Hotel-Inform", "Name", "Acorn House", 1, 2],
        ["Hotel-Inform", "Area", "north", 6, 6],
        ["Booking-Book", "Ref", "7GAW", 11, 11],
        ["Hotel-Inform", "Area", "south", 5, 5],  # off: not what stands there
    ]
    expected = "The [hotel_name] is in the [hotel_area] . Your number is [train_reference]"
    assert delexicalised(text, spans, "train") == expected
    assert delexicalised(text, None, "train") is None
