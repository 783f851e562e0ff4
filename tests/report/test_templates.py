"""Templates escape every value, and leave out what has no place in a page."""

import ast
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from framework.report.templates import environment, printable

PACKAGE = "framework.report"
FRAMEWORK = Path(__file__).parents[2] / "framework"
TAGS = r"</?(html|head|body|div|span|p|table|tr|td|th|section|svg|h[1-6]|b|i|pre|article|dl|style|script)[ >]"


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


@pytest.mark.slow
def test_html_stands_in_templates_alone():
    """No string of the package's code has tags in it; docstrings may."""
    found = []
    for file in sorted(FRAMEWORK.rglob("*.py")):
        tree = ast.parse(file.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                found += [f"{file.relative_to(FRAMEWORK)}:{node.lineno}"] if re.search(TAGS, node.value) else []
    assert found == []


def test_templates_are_packaged():
    # From Python 3.11 on.
    tomllib = pytest.importorskip("tomllib")
    settings = tomllib.loads((FRAMEWORK.parent / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]
    for file in [path for end in ("jinja", "css", "js") for path in FRAMEWORK.rglob(f"*.{end}")]:
        package = ".".join(("framework", *file.parent.relative_to(FRAMEWORK).parts))
        if package in patterns:
            assert any(file.match(pattern) for pattern in patterns[package]), file
        else:
            assert file.is_relative_to(FRAMEWORK / "gbc/environments/microworld/model"), f"{package}: no package-data"
