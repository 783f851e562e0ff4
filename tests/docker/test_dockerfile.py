"""What the image will have, read from the Dockerfile; `test_image.py` builds it."""

import re
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker/Dockerfile").read_text()


def argument(name: str) -> str:
    """The default of a build argument."""
    (value,) = re.findall(rf'^ARG {name}="?(.*?)"?$', TEXT, re.MULTILINE)
    return value


def test_what_a_gpu_needs_of_the_image():
    # Triton builds its launchers in C, and includes Python's headers.
    assert {"gcc", "libc6-dev"} <= set(argument("PACKAGES").split())
    assert "Python.h" in TEXT
    # Enroot gives a container its driver by these alone.
    assert re.search(r"^ENV .*NVIDIA_VISIBLE_DEVICES=all\b", TEXT, re.MULTILINE)
    (capabilities,) = re.findall(r"NVIDIA_DRIVER_CAPABILITIES=(\S+)", TEXT)
    assert {"compute", "utility"} <= set(capabilities.split(","))


def test_its_extras_and_files_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(argument("EXTRAS").split(",")) <= set(project["optional-dependencies"])
    copied = [line.split()[1:-1] for line in TEXT.splitlines() if line.startswith("COPY ") and "--from" not in line]
    assert copied
    assert all((ROOT / name).exists() for names in copied for name in names)
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
