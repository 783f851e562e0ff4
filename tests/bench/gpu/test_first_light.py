"""Strategies train, and saves are saved, on whatever device there is."""

from pathlib import Path

import pytest
import torch

from framework.bench.gpu.first_light import save_twice, train_strategies
from framework.bench.gpu.session import Session, read_lines


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(part="part", folder=tmp_path, rehearse=True, seconds=100.0, device=torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_saves_and_a_run_that_goes_on(session: Session):
    save_twice(session)
    saved, went_on = read_lines(session.folder)
    assert "error" not in saved | went_on, (saved, went_on)
    assert (saved["name"], went_on["name"]) == ("asynchronous saves", "a run that goes on")
    assert (len(saved["stalls_s"]), len(went_on["stalls_s"])) == (3, 1), (saved, went_on)
    assert all(a <= b for a, b in zip(saved["stalls_s"], saved["complete_after_s"], strict=True))


@pytest.mark.slow
def test_strategies_that_can_be_used_here_train(session: Session, monkeypatch: pytest.MonkeyPatch):
    # fsdp2 would leave a process group behind.
    monkeypatch.setattr("framework.bench.gpu.first_light.STRATEGY_NAMES", ("ddp", "deepspeed"))
    train_strategies(session)
    found = {line["name"]: line for line in read_lines(session.folder)}
    assert found["ddp, eager"]["steps"] == 3
    assert found["ddp, eager"]["grids"] == 1
    assert found["ddp, eager"]["loss/total"] > 0
    assert found["ddp, compiled"]["skipped"] == "compiles by Triton, on a GPU only"
    assert "needs" in found["deepspeed, eager"].get("error", found["deepspeed, eager"].get("skipped"))
