"""Figures of passes over language models belong together."""

from pathlib import Path

import pytest
import torch

from framework.bench.gpu.passes import measure_finegrained, measure_passes
from framework.bench.gpu.session import Session, read_lines


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(part="part", folder=tmp_path, rehearse=True, seconds=100.0, device=torch.device("cpu"))


@pytest.mark.slow
def test_passes_and_episodes_the_short_answers_first(session: Session):
    measure_passes(session)
    lines = read_lines(session.folder)
    assert [line["name"] for line in lines] == [
        f"small, {new} new tokens: {what}" for new in (2, 4) for what in ("pass", "episodes")
    ]
    assert all(line["difference"] < 1e-5 and line["times_faster_than_kept_graph"] > 0 for line in lines[::2])
    assert all(line["added"] == pytest.approx(line["attribution_s"] / line["generation_s"]) for line in lines[1::2])


@pytest.mark.slow
def test_finegrained(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("framework.bench.gpu.passes.ANSWERS", (1, 2))
    measure_finegrained(session)
    lines = read_lines(session.folder)
    assert [line["name"] for line in lines] == ["small, 1 answers", "small, 2 answers"]
    assert all(line["finite"] and line["output_tokens"] == 2 for line in lines)
