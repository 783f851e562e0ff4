"""The README's commands, with fewer steps."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_readme_names_targets_that_exist():
    named = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert named == ["quickstart", "test"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(named) <= set(targets)


def test_every_link_of_the_documents_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"


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
