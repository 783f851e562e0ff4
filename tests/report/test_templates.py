"""Templates escape every value, and leave out what has no place in a page."""

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from framework.report.templates import environment, printable

PACKAGE = "framework.report"


def test_values_are_escaped_and_never_templates_themselves():
    template = environment(PACKAGE).from_string('<i title="{{ value }}">{{ value }}</i>')
    shown = template.render(value="<b>\"'&{{ 7 * 7 }}")
    assert shown == '<i title="&lt;b&gt;&#34;&#39;&amp;{{ 7 * 7 }}">&lt;b&gt;&#34;&#39;&amp;{{ 7 * 7 }}</i>'
    assert template.render(value=Markup("<b>")) == '<i title="<b>"><b></i>'


def test_secrets_are_removed_where_they_are_asked_to_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SERVICE_TOKEN", "planted-secret")
    source = "{{ value }}, {{ number }}"
    values = {"value": "a planted-secret", "number": 2.5}
    assert environment(PACKAGE).from_string(source).render(values) == "a &lt;removed&gt;, 2.5"
    assert environment(PACKAGE, scrub=False).from_string(source).render(values) == "a planted-secret, 2.5"


def test_what_is_not_a_character_of_a_page_is_replaced():
    assert printable("a\0b\ud83d") == "a\ufffdb?"
    assert printable(3) == 3
    assert environment(PACKAGE, scrub=False).from_string("{{ value }}").render(value="\0") == "\ufffd"


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="'value' is undefined"):
        environment(PACKAGE).from_string("{{ value }}").render()
    assert environment(PACKAGE).from_string("{{ 'a' if false }}").render() == ""
