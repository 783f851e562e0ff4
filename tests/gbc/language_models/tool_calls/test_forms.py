"""Forms by their marks."""

import pytest

from framework.gbc.language_models.tool_calls.forms import FORMS, form_at


def test_the_first_form_in_a_text_counts():
    form, mark = form_at('a <tool_call>{"name": "b"}</tool_call>[TOOL_CALLS]', 0) or (None, None)
    assert form is not None
    assert mark is not None
    assert (form.end, mark.start(), form.holds) == ("</tool_call>", 2, "json")
    assert form_at("a message", 0) is None


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.begin.pattern)
def test_no_form_begins_with_nothing(form):
    assert form.begin.match("") is None
    assert form.begin.search("Hello. See [the page](x), {a} or f(x=1).") is None
