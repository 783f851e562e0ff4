"""The README's commands, with fewer steps."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from framework.cli.main import main
from framework.testing.processes.forked import start_command

ROOT = Path(__file__).parents[1]


def dry_run(target: str, *variables: str) -> str:
    """What `make TARGET` would run, a command a line."""
    command = ["make", "--dry-run", "--file", str(ROOT / "Makefile"), "--old-file", "install", target, "BIN=bin"]
    result = subprocess.run([*command, *variables], capture_output=True, text=True, timeout=60, check=True)
    return result.stdout.replace("\\\n", " ")


def test_the_readme_names_targets_that_exist():
    named = re.findall(r"^make ([\w-]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert named == ["quickstart", "test", "quickstart-gbc"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(named) <= set(targets)


def test_every_link_of_the_documents_leads_somewhere():
    outside = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "launch/README.md")]
    for page in [*outside, *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.slow
def test_quickstart(tmp_path, monkeypatch):
    """Its commands, each in a process of its own."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    few = "--trainer.max_steps 24 --trainer.val_check_interval 12"
    made = dry_run("quickstart", f"FIT_OPTIONS={few}", "SAMPLES=60", "GAP_IMAGES=20")
    commands = [words[1:] for words in map(shlex.split, made.splitlines()) if words[:1] == ["bin/framework"]]
    assert [words[0] for words in commands] == ["shards", "shards", "shards", "fit", "fit", "sample", "evaluate"]
    for words in commands:
        ended = start_command(*words).finish(timeout=300)
        assert ended.exitcodes == [0], ended.output[-3000:]
    shown = re.findall(r"runs/\S+\.(?:png|json|yaml)", made.partition("Look at:")[2])
    assert len(shown) >= 4
    for name in shown:
        assert (tmp_path / name).is_file(), name


@pytest.mark.slow
def test_quickstart_of_agents(tmp_path, monkeypatch, capsys):
    """Its commands one after another in this process, where what they import is imported once."""
    monkeypatch.chdir(tmp_path)
    made = dry_run("quickstart-gbc", "TASKS=4", "WRONG=1")
    for line in made.splitlines():
        program, *arguments = shlex.split(line)
        if program == "bin/framework":
            main(arguments)
    captured = capsys.readouterr()
    assert "planted in faulty.yaml: " in captured.out
    healthy, faulty, repaired = map(int, re.findall(r"(\d) of 4 without any error", captured.err))
    assert faulty + 2 <= healthy == 4
    assert repaired == 4
    assert "strongest trajectory: loss <- responder <- " in captured.out
    shown = re.findall(r"runs/\S+\.(?:png|jsonl|yaml|html)", made.partition("Look at:")[2])
    assert len(shown) >= 4
    assert all((tmp_path / name).is_file() for name in shown)
