"""The device that a command runs on, and the memory that is free there."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Shaped
from torch import Tensor

from framework.core.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device of a name such as cpu or cuda:1; for `auto` a GPU if there is one, else the CPU.

    Raises:
        ConfigError: not a device, or one that cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used ({str(error).splitlines()[0]})", hint="use cpu") from error
    return device


Numbers: TypeAlias = "float | Sequence[int] | Sequence[float] | Sequence[Sequence[int]]"


def tensor_on(device: torch.device, values: Numbers, dtype: torch.dtype = torch.int64) -> Shaped[Tensor, "..."]:
    """Numbers of the host as a tensor on a device, which nothing waits for.

    Args:
        device: where they are wanted.
        values: a number, numbers, or rows of as many each.
        dtype: of the tensor.
    """
    # The host's device by name: trainers make modules under their own default device.
    return to_device(torch.tensor(values, dtype=dtype, device="cpu"), device)


def to_device(tensor: Shaped[Tensor, "..."], device: torch.device) -> Shaped[Tensor, "..."]:
    """A tensor of the host on a device, which nothing waits for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def free_bytes(device: torch.device, *, system: Path = Path("/")) -> int | None:
    """Memory that this process could still take on a device; None where the system does not tell.

    Of a GPU, with what torch keeps there for later tensors; of the CPU, what the machine and the container have left.

    Args:
        device: a GPU or the CPU.
        system: where `proc` and `sys` are.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    found = [each for each in (_free_of_machine(system), _free_of_container(system)) if each is not None]
    return min(found, default=None)


def _free_of_machine(system: Path) -> int | None:
    try:
        lines = (system / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_of_container(system: Path) -> int | None:
    """By the limits of cgroups, of either version; of what is used, files that are only cached are as good as free."""
    files = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    )
    for limit, used, cached in files:
        try:
            folder = system / "sys/fs/cgroup"
            most, now = int((folder / limit).read_text()), int((folder / used).read_text())
            lines = (folder / limit).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # Of the other version; or "max", no limit.
            continue
        return max(0, most - now + sum(int(line.split()[1]) for line in lines if line.startswith(f"{cached} ")))
    return None
