"""Calls as Python writes them: values alone, never what is computed."""

import pytest

from framework.gbc.language_models.tool_calls.python_calls import parse_python_calls


def test_values_are_those_of_json():
    calls = parse_python_calls('[f(a=-1.5, b=[True, null], c={"d": (1, "x")}), g.h()]')
    assert calls == [("f", {"a": -1.5, "b": [True, None], "c": {"d": [1, "x"]}}), ("g.h", {})]


@pytest.mark.parametrize(
    "text",
    ["f(1)", "f(a=1, a=2)", "f(a=b)", "f(a=1+1)", "f(a={1: 2})", "f(a={'b': 1, 'b': 2})", "f(a=b'c')", "f(", "f"],
)
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match=r"Python|name|JSON"):
        parse_python_calls(text)
