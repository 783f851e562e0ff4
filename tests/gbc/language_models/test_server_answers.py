"""Chat completions and what is none."""

import pytest

from framework.core.errors import DataError
from framework.gbc.language_models.interface import Request
from framework.gbc.language_models.server_answers import choice_of, quote, said_in, usage_of, words_of_page

ASKED = Request(step="a", prompt="P", pieces=(), max_new_tokens=9)


@pytest.mark.parametrize(
    "answer",
    [None, [1], "text", {}, {"choices": None}, {"choices": []}, {"choices": ["a"]}, {"choices": [{"text": "a"}]}],
)
def test_what_is_no_chat_completion(answer: object):
    assert choice_of(answer) is None


def test_the_first_choice_and_what_it_says():
    choice = choice_of({"choices": [{"message": {"content": "A"}}, {"message": {"content": "B"}}]})
    assert choice is not None
    assert said_in(choice, ASKED, "http://x") == "A"


def test_what_a_filter_has_cut_is_no_answer():
    for text in ("", "Half of an ans"):
        choice = {"message": {"content": text}, "finish_reason": "content_filter"}
        with pytest.raises(DataError, match=r"http://x on 'a': the model was cut off by the server's filter"):
            said_in(choice, ASKED, "http://x")


def test_quotes_are_one_short_line_and_counts_are_numbers():
    assert quote("a\n  b") == "a b"
    assert len(quote("a" * 10_000)) < 250
    page = (
        "<!DOCTYPE html><html><head><style>b {color: red}</style><title>502 Bad Gateway</title></head><p>nginx &amp; x"
    )
    assert quote(words_of_page(page)) == "502 Bad Gateway nginx & x"
    assert words_of_page("a <b> c") == "a <b> c"
    assert words_of_page("<html>") == "<html>"
    assert usage_of({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}) == (3, 4)
    assert usage_of({"usage": {"prompt_tokens": "3"}}) is None
