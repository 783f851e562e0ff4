"""The README's commands, with fewer steps."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from framework.cli.main import main

ROOT = Path(__file__).parents[1]


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
def test_quickstart(tmp_path):
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    command = ["make", "--file", str(ROOT / "Makefile"), "--old-file", "install", "quickstart"]
    few = "--trainer.max_steps 24 --trainer.val_check_interval 12"
    variables = [f"BIN={Path(sys.executable).parent}", f"FIT_OPTIONS={few}", "SAMPLES=60", "GAP_IMAGES=20"]
    result = subprocess.run(
        [*command, *variables],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if result.returncode:
        pytest.fail(result.stdout[-3000:] + result.stderr[-3000:])
    shown = re.findall(r"runs/\S+\.(?:png|json|yaml)", result.stdout)
    assert len(shown) >= 4
    for name in shown:
        assert (tmp_path / name).is_file(), name


@pytest.mark.slow
def test_quickstart_of_agents(tmp_path, monkeypatch, capsys):
    """Its commands one after another in this process, where what they import is imported once."""
    monkeypatch.chdir(tmp_path)
    command = ["make", "--dry-run", "--file", str(ROOT / "Makefile"), "--old-file", "install", "quickstart-gbc"]
    options = ["BIN=bin", "TASKS=4", "WRONG=1"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=True)
    for line in result.stdout.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line)
        if program == "bin/framework":
            main(arguments)
    captured = capsys.readouterr()
    assert "planted in faulty.yaml: " in captured.out
    healthy, faulty, repaired = map(int, re.findall(r"(\d) of 4 without any error", captured.err))
    assert faulty + 2 <= healthy == 4
    assert repaired == 4
    assert "strongest trajectory: loss <- responder <- " in captured.out
    shown = re.findall(r"runs/\S+\.(?:png|jsonl|yaml|html)", result.stdout.partition("Look at:")[2])
    assert len(shown) >= 4
    assert all((tmp_path / name).is_file() for name in shown)
