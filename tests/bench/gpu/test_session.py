"""A measurement that fails is noted, and the next one runs."""

import weakref
from pathlib import Path

import pytest
import torch

from framework.bench.gpu.session import RESULTS, Session, read_lines


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(part="step", folder=tmp_path, rehearse=False, seconds=100.0, device=torch.device("cpu"))


def test_figures_come_as_they_are_measured(session: Session, capsys: pytest.CaptureFixture[str]):
    assert session.attempt("first", lambda: {"ms": 12.5, "peak_gib": session.peak_gib()})
    assert read_lines(session.folder) == [{"part": "step", "name": "first", "ms": 12.5, "peak_gib": None}]
    assert capsys.readouterr().out == "step: first: ms 12.5, peak_gib None\n"


def test_a_measurement_that_fails(session: Session):
    def fail() -> dict[str, object]:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    assert not session.attempt("large", fail)
    assert session.attempt("small", lambda: {"ms": 1.0})
    failed, measured = read_lines(session.folder)
    assert failed == {"part": "step", "name": "large", "error": "OutOfMemoryError: CUDA out of memory."}
    assert measured["ms"] == 1.0


def test_memory_of_a_measurement_that_fails_is_free_for_the_next(session: Session, monkeypatch: pytest.MonkeyPatch):
    kept: list[weakref.ref[torch.Tensor]] = []
    seen: list[bool] = []
    monkeypatch.setattr(Session, "free", lambda _: seen.append(kept[0]() is None))

    def fail() -> dict[str, object]:
        large = torch.zeros(3)
        kept.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert not session.attempt("large", fail)
    assert seen == [True]


def test_a_line_that_a_full_disk_has_cut(session: Session):
    session.note("first", ms=1.0)
    with (session.folder / RESULTS).open("a") as stream:
        stream.write('{"part": "st')
    assert [line["name"] for line in read_lines(session.folder)] == ["first"]


def test_what_takes_longer_than_is_left_is_left_out(session: Session):
    assert not session.attempt("long", lambda: {"ms": 1.0}, least_seconds=101)
    (line,) = read_lines(session.folder)
    assert line["skipped"].endswith("s left of 100, it takes about 101")
    rehearsal = Session(part="step", folder=session.folder, rehearse=True, seconds=1.0, device=torch.device("cpu"))
    assert rehearsal.attempt("long", lambda: {"ms": 1.0}, least_seconds=101)


def test_seconds_are_the_median(session: Session, monkeypatch: pytest.MonkeyPatch):
    times = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr(Session, "now", lambda _: next(times))
    done: list[int] = []
    assert session.seconds_of(lambda: done.append(1), rounds=3, warm_up=2) == 2.0
    assert len(done) == 5
