"""Errors of the parser in one line, and yes-or-no options without a value."""

import pytest

from framework.cli.parser import OneLineParser
from framework.tracking.loggers import RunConfig


@pytest.fixture
def parser() -> OneLineParser:
    parser = OneLineParser(prog="framework look [options]")
    parser.add_argument("--strict", type=bool, default=False)
    parser.add_argument("--num", type=int, default=1)
    return parser


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], False), (["--strict"], True), (["--strict", "true"], True), (["--strict=false"], False)],
)
def test_a_yes_or_no_option_needs_no_value(parser: OneLineParser, words: list[str], expected: bool):
    assert parser.parse_args(words).strict is expected


def test_a_heading_is_no_comment():
    parser = OneLineParser()
    parser.add_argument("--plain_format", type=str | None)
    assert parser.parse_args(["--plain_format", "### {prompt}"]).plain_format == "### {prompt}"


@pytest.mark.parametrize("words", [["--num", "many"], ["--nmu", "3"]])
def test_an_error_is_one_line_that_names_the_help(
    parser: OneLineParser, capsys: pytest.CaptureFixture[str], words: list[str]
):
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(words)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words[0].lstrip("-") in line
    assert line.endswith("(see: framework look --help)")


def test_a_key_that_has_moved_is_named_by_its_new_name(parser: OneLineParser, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parser.parse_args(["--data.crop", "random"])
    assert capsys.readouterr().err == "error: data.crop is now data.images.crop (see: framework look --help)\n"


def test_paths_are_expanded_where_things_are_made_and_kept_as_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/ada")
    parser = OneLineParser()
    parser.add_class_arguments(RunConfig, "run")
    settings = parser.parse_args(["--run.dir", "~/runs/x"])
    assert parser.instantiate(settings).run.dir == "/home/ada/runs/x"
    assert "dir: ~/runs/x" in parser.dump(settings)
