"""Figures of a training step belong together."""

from pathlib import Path

import pytest
import torch

from framework.bench.gpu.session import Session
from framework.bench.gpu.shapes import TINY
from framework.bench.gpu.step import matrix_peak, measure_step
from framework.pra.loss import ObjectiveConfig
from framework.pra.planning.flops import training_flops_per_image


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(part="part", folder=tmp_path, rehearse=True, seconds=100.0, device=torch.device("cpu"))


@pytest.mark.slow
def test_figures_of_a_step_belong_together(session: Session):
    found = measure_step(session, TINY, 2, 1e9)
    flops = training_flops_per_image(TINY, ObjectiveConfig())[1] * 2
    assert found["images_per_second"] == pytest.approx(2000 / found["step_ms"])
    assert found["mfu_of_measured_peak"] == pytest.approx(flops / (found["step_ms"] / 1000) / 1e9)
    assert found["peak_gib"] is None


def test_peaks_are_operations_and_bytes_over_seconds(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Session, "seconds_of", lambda self, work, rounds: (work() and 0.0) or 0.5)
    # Three products of 256 x 256 matrices, and a mebibyte that is read and written.
    assert matrix_peak(session) == 2 * 256**3 * 3 / 0.5
