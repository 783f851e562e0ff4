from dataclasses import dataclass, field
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from framework.core.settings.texts import AS_WRITTEN

HEADINGS = ["# Draft: {draft}", "### {prompt}", "#1", " # a\n# b"]


@dataclass(frozen=True, kw_only=True)
class Record:
    text: str | None = "before"
    kind: str | dict[str, Any] = "before"
    more: dict[str, Any] = field(default_factory=dict[str, Any])


def parser(**options: Any) -> Any:
    made = ArgumentParser(exit_on_error=False, **options)
    made.add_argument("--value", type=Record)
    return made


@pytest.mark.parametrize("text", HEADINGS)
def test_a_heading_is_no_comment(text: str):
    made = parser()
    assert made.instantiate(made.parse_args(["--value.text", text])).value.text == text
    assert made.instantiate(made.parse_object({"value": {"text": text, "more": {"stop": text}}})).value == Record(
        text=text, more={"stop": text}
    )


def test_other_texts_of_a_command_line_are_yaml_as_before():
    made = parser()
    assert made.parse_args(["--value.text", "null"]).value.text is None
    assert made.parse_args(["--value.text", "1.0"]).value.text == "1.0"
    assert made.parse_args(["--value.kind", "{a: [1, b]} # c"]).value.kind == {"a": [1, "b"]}
    assert made.parse_args(["--value.text", "# a\nb"]).value.text == "# a\nb"


@pytest.mark.parametrize("text", [*HEADINGS, "Mr Jones: room 70", "{a: 1}", "- a", "yes", "a: # b"])
def test_what_a_file_gives_is_not_read_again(text: str):
    made = parser(parser_mode=AS_WRITTEN)
    given = {"text": text, "kind": text, "more": {"stop": text, "other": 3}}
    assert made.instantiate(made.parse_object({"value": given})).value == Record(**given)
