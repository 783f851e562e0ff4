"""The commands that list runs, show one and send what W&B has not got."""

import json
from pathlib import Path

import pytest

from framework.cli import runs
from framework.core.errors import ConfigError, TrainingError
from framework.report.run_summary import unsent_files
from framework.testing.run_folders import make_run_folder, make_run_folders
from framework.tracking.data_identity import DataIdentity, SetIdentity, note_data
from framework.tracking.run_folder import UNSENT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_run_folders(tmp_path)


def test_ls(root: Path, capsys: pytest.CaptureFixture[str]):
    runs.ls(str(root))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "state", "step", "loss", "per", "second", "checkpoint", "starts", "W&B"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["a/finished", "finished", "12/12"],
        ["a/preempted", "preempted", "5/12"],
        ["failed", "failed", "7/12"],
        ["interrupted", "interrupted", "6/12"],
        ["killed", "failed", "5/12"],
        ["unknown", "unknown", "0"],
    ]
    runs.ls(str(root), json_lines=True)
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[2]["restarts"][1]["end"]["message"] == "TrainingError: nan"
    runs.ls(str(root / "no run"))
    assert "no runs in" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no folder"):
        runs.ls(str(root / "nowhere"))


def test_show(root: Path, capsys: pytest.CaptureFixture[str]):
    runs.show(str(root / "failed"))
    text = capsys.readouterr().out
    assert "failed, step 7 of 12 (TrainingError: nan)" in text
    assert "2026-03-04 09:15:00" in text
    for words in ("preempted", "node01", "loss/total", "throughput/images_per_second"):
        assert words in text
    shards = SetIdentity(path="shards/[digits]", digest="0123456789abcdef" * 4, num_samples=1234)
    note_data(root / "killed", DataIdentity(classes=tuple(map(str, range(21))), train=(shards,)))
    runs.show(str(root / "killed"))
    text = capsys.readouterr().out
    assert "killed" in text
    assert "training data shards/[digits]: 1,234 samples, digest 0123456789ab" in text
    assert "21 classes: 0, 1, 2" in text
    assert "19 and 1 more" in text
    with pytest.raises(ConfigError, match="framework runs ls"):
        runs.show(str(root / "no run"))


def make_wandb_file(run: Path, name: str, *marks: str) -> Path:
    file = run / "wandb" / name / "run-ab12cd34.wandb"
    file.parent.mkdir(parents=True)
    for mark in ("", *marks):
        file.with_name(file.name + mark).write_text("x")
    return file


def test_what_is_to_be_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run_folder(tmp_path / "run")
    make_wandb_file(run, "offline-run-20260101_000000-ab12cd34", ".synced")
    late = make_wandb_file(run, "offline-run-20260103_000000-ab12cd34")
    early = make_wandb_file(run, "run-20260102_000000-ab12cd34", UNSENT)
    make_wandb_file(run, "run-20260102_120000-ab12cd34")
    assert unsent_files(run) == [early, late]
    assert unsent_files(run, running=True) == [early]
    runs.sync(str(tmp_path), dry_run=True)
    assert capsys.readouterr().err.splitlines() == [f"would send {early}", f"would send {late}"]


def test_a_server_that_cannot_be_reached_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run_folder(tmp_path / "run")
    file = make_wandb_file(run, "offline-run-20260103_000000-ab12cd34")
    # The port of discarded packets: nobody listens there.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    with pytest.raises(TrainingError, match=r"127\.0\.0\.1:9 cannot be reached .* call it again"):
        runs.sync(str(tmp_path))
    assert unsent_files(run) == [file]


def test_a_long_name_hides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    make_run_folder(tmp_path / ("x" * 200))
    make_run_folder(tmp_path / "new\nline")
    monkeypatch.setenv("COLUMNS", "80")
    runs.ls(str(tmp_path))
    shown = capsys.readouterr().out
    assert shown.count("x") == 200
    assert shown.count("finished") == shown.count("12/12") == shown.count("ab12cd34") == 2
    assert "new\\nline" in shown
