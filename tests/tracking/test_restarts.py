"""Starts and ends of a run."""

from pathlib import Path

import pytest

from framework.tracking.restarts import CONTAINER, FILE, describe_start, note_end, note_start, read_attempts


def test_what_is_noted_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CONTAINER, "registry/image@sha256:abc")
    first = describe_start(attempt=0, step=0, command=["/some/where/framework", "fit", "--x.token", "T", "a b"])
    assert first.command == "framework fit --x.token '<removed>' 'a b'"
    assert first.container == "registry/image@sha256:abc"
    second = describe_start(attempt=1, step=40, world_size=4, git_revision="abc", packages={"torch": "2"})
    note_start(tmp_path / "run", first)
    note_start(tmp_path / "run", second)
    note_end(tmp_path / "run", attempt=1, outcome="failed", step=50, message="at https://u:p@host")
    [one, two] = read_attempts(tmp_path / "run")
    assert (one.start, one.end) == (first, None)
    assert two.start == second
    assert two.end is not None
    assert (two.end.outcome, two.end.step, two.end.message) == ("failed", 50, "at https://<removed>@host")


def test_pieces_are_passed_over_and_the_last_end_counts(tmp_path: Path):
    note_start(tmp_path, describe_start(attempt=0, step=0))
    with (tmp_path / FILE).open("a") as file:
        file.write('\n{"event": "end", "attempt": 0, "outc')
    note_end(tmp_path, attempt=0, outcome="finished", step=3)
    note_end(tmp_path, attempt=0, outcome="failed", step=3)
    note_end(tmp_path, attempt=7, outcome="finished", step=3)
    with (tmp_path / FILE).open("a") as file:
        file.write('\n{"event": "start"}\nnull\n{"event": "start", "attempt')
    [attempt] = read_attempts(tmp_path)
    assert attempt.end is not None
    assert attempt.end.outcome == "failed"


def test_fields_that_a_later_version_adds_are_passed_over(tmp_path: Path):
    note_start(tmp_path, describe_start(attempt=0, step=0))
    text = (tmp_path / FILE).read_text().replace('"attempt": 0', '"attempt": 0, "weather": "fine"')
    (tmp_path / FILE).write_text(text)
    assert [attempt.start.attempt for attempt in read_attempts(tmp_path)] == [0]


def test_no_file(tmp_path: Path):
    assert read_attempts(tmp_path) == []
