"""The command's process of a part: it waits for its turn, and says which package it lacks."""

import io
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import framework.bench.gpu.__main__ as command
from framework.bench.gpu.cifar import IMAGES
from framework.bench.gpu.runner import PARTS, Options, Part
from framework.bench.gpu.session import append_line


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, turn: str, function: str) -> int:
    part = Part(name="step", title="", function=function, seconds=1)
    monkeypatch.setattr(command, "named_part", lambda name: part)
    monkeypatch.setattr("sys.stdin", io.StringIO(turn))
    return command.main(["--part", "step", "--out", str(folder), "--rehearse"])


def test_a_part_gets_its_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    seen = []
    monkeypatch.setattr("framework.bench.gpu.table.noted", seen.append, raising=False)
    assert run(monkeypatch, tmp_path, "12.5\n", "framework.bench.gpu.table:noted") == 0
    (session,) = seen
    assert (session.part, session.folder, session.rehearse, session.seconds) == ("step", tmp_path, True, 12.5)


def test_without_a_turn_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert run(monkeypatch, tmp_path, "", "framework.bench.gpu.table:make_table") == 1


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(monkeypatch, tmp_path, "12\n", "package_that_is_not_there.x:f") == 1
    assert capsys.readouterr().out == "needs a package: No module named 'package_that_is_not_there'\n"


def test_a_benchmark_that_is_told_to_end_leaves_its_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run_parts(options: Options) -> None:
        append_line(options.folder, {"part": "benchmark", "name": "started"})
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, "run_parts", run_parts)
    try:
        with pytest.raises(SystemExit) as stopped:
            command.main(["--out", str(tmp_path), "--rehearse"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 143
    assert "| benchmark | started |" in (tmp_path / "table.md").read_text()


def test_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        command.main(["--out", str(tmp_path)])
    assert "there is no GPU here: with --rehearse all parts run" in capsys.readouterr().err


def test_make_runs_this_command(monkeypatch: pytest.MonkeyPatch):
    makefile = Path(__file__).parents[3] / "Makefile"
    wanted = [
        "make",
        "--dry-run",
        "--no-print-directory",
        "--file",
        str(makefile),
        "--old-file",
        "install",
        "benchmark-gpu",
        "BIN=bin",
    ]
    printed = subprocess.run([*wanted, "CIFAR10=images.zip"], capture_output=True, text=True, check=True).stdout
    (line,) = printed.splitlines()
    variable, *words = line.split()
    assert variable == f"{IMAGES}=images.zip"
    assert words[:3] == ["bin/python", "-m", "framework.bench.gpu"]
    seen: list[Options] = []
    monkeypatch.setattr(command, "run_parts", seen.append)
    monkeypatch.setattr("framework.bench.gpu.table.save_table", lambda folder: "")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert command.main(words[3:]) == 0
    assert [(each.minutes, each.rehearse, each.parts) for each in seen] == [(9.0, False, ())]


def test_options_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        command.main(["--out", str(tmp_path), "--minutes", "0"])
    assert "--minutes 0.0: give more than 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["--help"])
    told = capsys.readouterr().out
    assert all(part.name in told for part in PARTS)
