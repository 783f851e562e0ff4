"""A device by its name, and the memory that is free."""

from pathlib import Path

import pytest
import torch

from framework.core.devices import free_bytes, pick_device
from framework.core.errors import ConfigError


def test_names():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cdua", "cuda:99"])
def test_what_is_not_there(name: str):
    with pytest.raises(ConfigError, match=f"device '{name}' cannot be used .*: use cpu"):
        pick_device(name)


CPU = torch.device("cpu")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_free_memory_of_this_machine():
    found = free_bytes(CPU)
    assert found is None or 2**20 < found < 2**50


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max\n", 3_000_000 * 1024), ("2000000000\n", 2_000_000_000 - 900_000_000 + 100_000_000), ("5\n", 0)],
)
def test_free_memory_of_a_container(tmp_path: Path, limit: str, expected: int):
    assert free_bytes(CPU, system=tmp_path) is None
    write(tmp_path / "proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable:    3000000 kB\n")
    write(tmp_path / "sys/fs/cgroup/memory.max", limit)
    write(tmp_path / "sys/fs/cgroup/memory.current", "900000000\n")
    write(tmp_path / "sys/fs/cgroup/memory.stat", "anon 5\ninactive_file 100000000\n")
    assert free_bytes(CPU, system=tmp_path) == expected


def test_free_memory_of_an_older_container(tmp_path: Path):
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n")
    write(tmp_path / "sys/fs/cgroup/memory/memory.usage_in_bytes", "300\n")
    write(tmp_path / "sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 50\n")
    assert free_bytes(CPU, system=tmp_path) == 750


def test_free_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch):
    figures = {"memory_reserved": 30, "memory_allocated": 10, "mem_get_info": (100, 200)}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_bytes(torch.device("cuda")) == 120
