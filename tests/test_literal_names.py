"""Names from outside are shown as they are, by every command: brackets are no markup, `:cat:` is no emoji."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from framework.cli.main import main
from framework.core.console import visible
from framework.testing.images import make_image_folder
from framework.testing.run_folders import make_run_folder

NAMES = ["[pad]", "[red]x", ":cat:", "b[-c]d", "esc\x1b[31m", "née \u202e"]
HOSTILE = "b[/c]d :cat: [pad]"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "b[" / "c]d :cat: [pad]"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return folder


def told(capsys: pytest.CaptureFixture[str], *command: object, code: int | None = None) -> str:
    """What a command prints, in one line: rich may break cells into several."""
    if code is None:
        main([str(word) for word in command])
    else:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in command])
        assert ended.value.code == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_runs(here: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run_folder(here / "run [bold]", stretches=((0, 5, "failed", "TrainingError: [/x] [red]"),))
    shown = "b[/c]d :cat: [pad]/run [bold]"
    assert shown in told(capsys, "runs", "ls", ".")
    assert shown in told(capsys, "runs", "show", shown)
    assert "(TrainingError: [/x] [red])" in told(capsys, "runs", "show", shown)
    assert f"nothing to send in {shown}" in told(capsys, "runs", "sync", shown)
    assert f"report in {shown}/report.html" in told(capsys, "report", shown)
    shutil.rmtree(run)
    assert "no runs in b[/c]d :cat: [pad]" in told(capsys, "runs", "ls", "b[/c]d :cat: [pad]")


def test_shards(here: Path, capsys: pytest.CaptureFixture[str]):
    make_image_folder(here / "images", classes=tuple(NAMES), per_class=1, size=8)
    (here / "images" / NAMES[0] / "bad [x].png").write_bytes(b"x")
    images, shards = f"{HOSTILE}/images", f"{HOSTILE}/shards"
    text = told(capsys, "shards", "images", images, shards)
    assert "skipped [pad]/bad [x].png: " in text
    assert f"{len(NAMES)} images of {len(NAMES)} classes in 1 shards in {shards}" in text
    assert f"{shards} is complete and sound" in told(capsys, "shards", "check", shards)
    text = told(capsys, "shards", "stats", shards)
    for name in NAMES:
        assert visible(name) in text
    assert f"images of {shards}, in its order" in told(capsys, "shards", "peek", shards, "--out", f"{HOSTILE}/x.png")
    assert f"error: 1 problems in {HOSTILE}/none" in told(capsys, "shards", "check", f"{HOSTILE}/none", code=2)


def test_names_that_are_not_utf_8(here: Path, capsys: pytest.CaptureFixture[str]):
    make_run_folder(Path("caf\udce9"))
    assert "caf\\udce9" in told(capsys, "runs", "ls", ".")


def test_agents(here: Path, capsys: pytest.CaptureFixture[str]):
    when = {"source": "user", "pattern": "[/a]"}
    agents = [{"name": "writer", "prompt": "[b]", "model": "m[/]", "reads": ["user"], "when": when}]
    (here / "graph.yaml").write_text(yaml.safe_dump({"agents": agents}))
    text = told(capsys, "agents", "check", f"{HOSTILE}/graph.yaml")
    assert "user has /[/a]/" in text
    assert "m[/]" in text
    (here / "models.yaml").write_text("'m[/]': {url: 'http://localhost:1/v1', model: x, retries: 0}")
    (here / "tasks.jsonl").write_text(json.dumps({"id": "[red]", "user": "[/a] \ud83d"}))
    command = ("agents", "run", f"{HOSTILE}/graph.yaml", f"{HOSTILE}/tasks.jsonl", "--models", f"{HOSTILE}/models.yaml")
    text = told(capsys, *command, "--out", f"{HOSTILE}/traces.jsonl", code=1)
    assert f"{HOSTILE}/traces.jsonl: 0 of 1 tasks finished, 1 failed" in text
    assert "1 x task '[red]' has half of a character (\\ud83d) at place 5 of user" in text
    command = ("attribute", "--trace", f"{HOSTILE}/traces.jsonl", "--graph", f"{HOSTILE}/graph.yaml")
    text = told(capsys, *command, "--models", f"{HOSTILE}/models.yaml", "--loss", "exact_match")
    assert f"{HOSTILE}/traces.jsonl: nothing to blame" in text
    assert "1 x task '[red]' has half of a character" in text
