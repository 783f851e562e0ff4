"""Failures are told once for each reason."""

import pytest

from framework.gbc.commands.failures import failure_kinds, kind_of, print_failures

FAILURES = ["agent 'a@1' says nothing", "task '7' has no text 'user'", "agent 'b' says nothing"]


def test_failures_that_are_alike_but_for_names_and_numbers(capsys: pytest.CaptureFixture[str]):
    assert list(failure_kinds(FAILURES)) == [(2, FAILURES[0]), (1, FAILURES[1])]
    assert kind_of(FAILURES[0]) == kind_of(FAILURES[2]) != kind_of(FAILURES[1])
    print_failures(FAILURES)
    assert capsys.readouterr().err == f"  2 x {FAILURES[0]}\n  1 x {FAILURES[1]}\n"
    print_failures([])
    assert capsys.readouterr().err == ""
