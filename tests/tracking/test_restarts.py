"""Starts and ends of a run."""

import json
from pathlib import Path

import pytest

from framework.tracking.restarts import CONTAINER, FILE, describe_start, note_end, note_start, read_restarts


def test_what_is_noted_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CONTAINER, "registry/image@sha256:abc")
    first = describe_start(restart=0, step=0, command=["/some/where/framework", "fit", "--x.token", "T", "a b"])
    assert first.command == "framework fit --x.token '<removed>' 'a b'"
    assert first.container == "registry/image@sha256:abc"
    second = describe_start(restart=1, step=40, world_size=4, git_revision="abc", packages={"torch": "2"})
    note_start(tmp_path / "run", first)
    note_start(tmp_path / "run", second)
    note_end(tmp_path / "run", restart=1, outcome="failed", step=50, message="at https://u:p@host")
    [one, two] = read_restarts(tmp_path / "run")
    assert (one.start, one.end) == (first, None)
    assert two.start == second
    assert two.end is not None
    assert (two.end.outcome, two.end.step, two.end.message) == ("failed", 50, "at https://<removed>@host")


def test_pieces_are_passed_over_and_the_last_end_counts(tmp_path: Path):
    note_start(tmp_path, describe_start(restart=0, step=0))
    with (tmp_path / FILE).open("a") as file:
        file.write('\n{"event": "end", "restart": 0, "outc')
    note_end(tmp_path, restart=0, outcome="finished", step=3)
    note_end(tmp_path, restart=0, outcome="failed", step=3)
    note_end(tmp_path, restart=7, outcome="finished", step=3)
    with (tmp_path / FILE).open("a") as file:
        file.write('\n{"event": "start"}\nnull\n{"event": "start", "restart')
    [restart] = read_restarts(tmp_path)
    assert restart.end is not None
    assert restart.end.outcome == "failed"


def test_fields_that_a_later_version_adds_are_passed_over(tmp_path: Path):
    note_start(tmp_path, describe_start(restart=0, step=0))
    text = (tmp_path / FILE).read_text().replace('"restart": 0', '"restart": 0, "weather": "fine"')
    (tmp_path / FILE).write_text(text)
    assert [restart.start.restart for restart in read_restarts(tmp_path)] == [0]


def test_a_file_that_was_written_before_is_read_and_appended_to(tmp_path: Path):
    # Written by version 0.1.
    old = (
        '\n{"event": "start", "attempt": 0, "step": 0, "time": "2026-03-04T09:15:00+00:00", '
        '"command": "framework fit", "host": "node00", "world_size": 8, "device": "NVIDIA H100 80GB HBM3", '
        '"git_revision": null, "packages": '
        '{"torch": "2.13.0"}, "python": "3.11.7", "container": null}'
        '\n{"event": "end", "attempt": 0, "outcome": "preempted", "step": 5, "time": "2026-03-04T09:20:00+00:00", '
        '"message": "SIGTERM"}'
    )
    (tmp_path / "attempts.jsonl").write_text(old)
    [first] = read_restarts(tmp_path)
    assert (first.start.restart, first.start.world_size, first.end and first.end.outcome) == (0, 8, "preempted")
    note_start(tmp_path, describe_start(restart=1, step=5))
    note_end(tmp_path, restart=1, outcome="finished", step=9)
    text = (tmp_path / "attempts.jsonl").read_text()
    assert text.startswith(old)
    assert [(entry.start.restart, entry.start.step) for entry in read_restarts(tmp_path)] == [(0, 0), (1, 5)]
    new_start, new_end = map(json.loads, text.removeprefix(old).strip().splitlines())
    old_start, old_end = map(json.loads, old.strip().splitlines())
    assert (new_start.keys(), new_end.keys()) == (old_start.keys(), old_end.keys())


def test_no_file(tmp_path: Path):
    assert read_restarts(tmp_path) == []


def test_what_has_no_time_is_passed_over(tmp_path: Path):
    """From a time without a zone no other can be subtracted."""
    start = {"event": "start", "attempt": 0, "step": 0, "command": "c", "host": "h"}
    lines = [{**start, "time": time} for time in ("yesterday", "2026-03-04T09:15:00", "2026-03-04T09:15:00+00:00")]
    (tmp_path / FILE).write_bytes(b"\xff\xfe\n".join(json.dumps(line).encode() + b"\n" for line in lines))
    assert [restart.start.time for restart in read_restarts(tmp_path)] == ["2026-03-04T09:15:00+00:00"]
