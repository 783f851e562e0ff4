"""The JSON file of a benchmark, and the machine that its numbers are of."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from framework.core.io import atomic_write, check_outputs


def machine_of(device: str = "cpu") -> str:
    """The device in words: a GPU's name, or the processor with its cores and Python."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def check_record(out: str | Path | None) -> None:
    """Whether the numbers can be written, if a file is named, before anything is measured. Raises ConfigError."""
    if out is not None:
        check_outputs(out)


def write_record(out: str | Path | None, record: Mapping[str, object]) -> None:
    """Writes the numbers, if a file is named; makes its folder. Raises OSError."""
    if out is None:
        return
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        stream.write((json.dumps(record, indent=1) + "\n").encode())
