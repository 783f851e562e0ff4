"""Parts run in turn, in time, and one that fails or hangs leaves the others and its own figures."""

import sys
import time
from pathlib import Path

import pytest

from framework.bench.gpu import runner
from framework.bench.gpu.runner import NINE_MINUTES, PARTS, Options, Part, run_parts
from framework.bench.gpu.session import read_lines

# What stands for the parts' processes: each waits for its turn, writes a figure, and ends in its way.
SCRIPT = """
import json, os, sys, time
part, folder = sys.argv[1:]
seconds = float(sys.stdin.readline())
with open(folder + "/results.jsonl", "a") as file:
    file.write(json.dumps({"part": part, "name": "figure", "limit": seconds}) + "\\n")
if part == "hangs":
    if os.fork() == 0:
        open(folder + "/child", "w").write(str(os.getpid()))
        time.sleep(1000)
    time.sleep(1000)
if part == "killed":
    os.kill(os.getpid(), 9)
if part == "fails":
    raise ValueError("wrong\\nin two lines")
"""


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("hangs", "fails", "killed", "lasts")
    table = tuple(Part(name=name, title=name, function="", seconds=72.0) for name in names)
    monkeypatch.setattr(runner, "PARTS", table)
    monkeypatch.setattr(runner, "_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(runner, "_LEAST_SECONDS", 0.01)
    start = runner.subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        if "--part" not in command:
            return start(command, **options)
        part, folder = command[command.index("--part") + 1], command[command.index("--out") + 1]
        return start([sys.executable, "-S", "-c", SCRIPT, part, folder], **options)

    monkeypatch.setattr(runner.subprocess, "Popen", popen)


@pytest.mark.slow
@pytest.mark.usefixtures("parts")
def test_a_part_that_hangs_or_fails_leaves_the_others(tmp_path: Path):
    started = time.monotonic()
    run_parts(Options(minutes=0.05, folder=tmp_path, rehearse=False))
    assert time.monotonic() - started < 3
    lines = read_lines(tmp_path)
    assert lines[0]["part"] == "benchmark"
    assert lines[0]["torch"]
    assert lines[0]["command"]
    assert lines[0]["date"].startswith("20")
    figures = {line["part"]: line["limit"] for line in lines if line["name"] == "figure"}
    assert set(figures) == {"hangs", "fails", "killed", "lasts"}
    # Stretched with the minutes; the last one has all that is left.
    assert figures["hangs"] == pytest.approx(72 * 3 / NINE_MINUTES)
    assert figures["lasts"] > 1
    ended = {line["part"]: line for line in lines if line["name"] == "ended"}
    assert ended["hangs"]["status"] == "out of time"
    assert ended["fails"]["status"] == "failed (exit code 1)"
    assert ended["fails"]["last_words"] == "in two lines"
    assert ended["killed"]["status"] == "failed (exit code -9)"
    assert all(line["processor_s"] >= 0 for line in ended.values())
    # As of the last part, whoever ends the benchmark afterwards.
    assert "| lasts | ended | status done" in (tmp_path / "table.md").read_text()
    assert ended["lasts"]["status"] == "done"
    # Nothing that a part has started outlives it.
    child = int((tmp_path / "child").read_text())
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


@pytest.mark.slow
@pytest.mark.usefixtures("parts")
def test_chosen_parts_run_and_without_time_none(tmp_path: Path):
    run_parts(Options(minutes=0.05, folder=tmp_path, rehearse=True, parts=("lasts",)))
    assert {line["part"] for line in read_lines(tmp_path)} == {"benchmark", "lasts"}
    run_parts(Options(minutes=1e-6, folder=tmp_path / "none", rehearse=True))
    statuses = [line["status"] for line in read_lines(tmp_path / "none") if line["name"] == "ended"]
    assert statuses == ["left out: no time"] * 4


def test_limits_fit_into_nine_minutes():
    assert sum(part.seconds for part in PARTS) <= NINE_MINUTES
    assert PARTS[-1].name == "cifar"
