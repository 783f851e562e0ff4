"""What is told goes to stderr, so that results on stdout can be piped."""

import pytest

from framework.core.console import console


def test_messages_are_whole_lines_on_stderr(capsys: pytest.CaptureFixture[str]):
    line = "a long message " * 20
    console.print(line)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{line}\n"
