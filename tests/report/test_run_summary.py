"""Runs as their folders show them."""

import subprocess
import sys
from pathlib import Path

import pytest

from framework.report.page import page
from framework.report.run_summary import find_runs, read_run
from framework.testing.run_folders import make_run_folder, make_run_folders

HOLD = """
import sys
from pathlib import Path
from framework.core.io import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_run_folders(tmp_path)


def test_states(root: Path):
    found = {path.name: read_run(path) for path in find_runs(root)}
    assert {name: run.state for name, run in found.items()} == {
        "finished": "finished",
        "preempted": "preempted",
        "interrupted": "interrupted",
        "failed": "failed",
        "killed": "failed",
        "unknown": "unknown",
    }
    assert {name: run.step for name, run in found.items()} == {
        "finished": 12,
        "preempted": 5,
        "interrupted": 6,
        "failed": 7,
        "killed": 5,
        "unknown": 0,
    }
    assert found["failed"].reason == "TrainingError: nan"
    assert "killed" in found["killed"].reason
    assert (found["finished"].max_steps, found["unknown"].max_steps) == (12, None)
    assert (found["finished"].checkpoints, found["finished"].wandb_id) == ([12], "ab12cd34")


def test_a_run_is_running_while_its_lock_is_held(root: Path):
    run = root / "killed"
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        found = read_run(run)
        assert (found.state, found.reason.split(" on ")[0]) == ("running", f"process {holder.pid}")
        # Asking has not taken it.
        assert read_run(run).state == "running"
        assert holder.stdin is not None
        holder.stdin.close()
    assert read_run(run).state == "failed"


@pytest.mark.parametrize(
    "recipe",
    [
        b"[1, 2]",
        b"trainer: [1]\nmodel: 3",
        b"trainer: {max_steps: many}\nmodel: {class_path: [x]}",
        b"\xff\0: {",
        b"a: 1\na: 2",
        # A few lines that stand for millions of values.
        b"a: &a [1, 1]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n + 1, n + 1, b", ".join([b"*%c" % n] * 9)) for n in range(97, 104)),
    ],
)
def test_a_recipe_that_tells_nothing(tmp_path: Path, recipe: bytes):
    make_run_folder(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_bytes(recipe)
    run = read_run(tmp_path / "run")
    assert (run.max_steps, run.model, run.step) == (None, None, 12)
    assert "<h2" in page(run, ())
