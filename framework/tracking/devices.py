"""What accelerators can do: memory, peak speed and bandwidths, from data sheets (decision 018)."""

import os
import time
from dataclasses import dataclass

from framework.core.errors import ConfigError

GIB = 2**30
HERE = "here"
"""Names the machine that a command runs on."""
_MEASURED_SIZE, _MEASURED_TIMES = 1024, 10
_COPIED_BYTES = 2**26


@dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator.

    Attributes:
        name: as users call it.
        memory_bytes: as torch sees it (less than what is printed on the box).
        bfloat16_flops: peak of dense matrix products in bfloat16 with sums in float32, in operations per second.
        memory_bandwidth: of its own memory, in bytes per second.
        link_bandwidth: to the other devices of its node, in one direction, in bytes per second.
        words: all of them are in the name that torch reports.
    """

    name: str
    memory_bytes: int
    bfloat16_flops: float
    memory_bandwidth: float
    link_bandwidth: float
    words: tuple[str, ...]


def _device(name: str, memory_gib: float, teraflops: float, memory_tb: float, link_gb: float, words: str) -> Device:
    """A row of the table.

    Args:
        name: as users call it.
        memory_gib: as torch sees it.
        teraflops: peak in bfloat16, in 10^12 operations per second.
        memory_tb: bandwidth of its memory, in 10^12 bytes per second.
        link_gb: bandwidth to its neighbours, in one direction, in 10^9 bytes per second.
        words: of the name that torch reports, between commas.
    """
    return Device(
        name=name,
        memory_bytes=int(memory_gib * GIB),
        bfloat16_flops=teraflops * 1e12,
        memory_bandwidth=memory_tb * 1e12,
        link_bandwidth=link_gb * 1e9,
        words=tuple(words.split(", ")),
    )


DEVICES = (
    _device("A100-40GB", 39.4, 312, 1.555, 300, "A100, 40GB"),
    _device("A100-80GB", 79.2, 312, 2.039, 300, "A100, 80GB"),
    _device("H100-PCIe", 79.2, 756, 2.0, 64, "H100, PCIe"),
    _device("H100", 79.2, 989.4, 3.35, 450, "H100"),
    _device("H200", 139.8, 989.4, 4.8, 450, "H200"),
    _device("B200", 178.3, 2250, 8.0, 900, "B200"),
    _device("L40S", 44.4, 362, 0.864, 32, "L40S"),
    _device("RTX4090", 23.5, 165.2, 1.008, 32, "RTX 4090"),
)
"""More exact names first: the first that fits counts."""


def named_device(name: str) -> Device:
    """A device of the table, whatever the case of its name.

    Raises:
        ConfigError: not in the table.
    """
    for device in DEVICES:
        if device.name.lower() == name.lower():
            return device
    known = ", ".join(device.name for device in DEVICES)
    raise ConfigError(f"device {name!r} is not known", hint=f"use one of {known}, {HERE}, or its memory such as 48GiB")


def this_machine() -> Device:
    """This machine's GPU, if it is in the table; else its processor, with the speed at which it multiplies matrices.

    Takes about a second; the speed is of float32.
    """
    import torch

    if torch.cuda.is_available() and (found := recognised_device(torch.cuda.get_device_name())):
        return found
    matrix = torch.ones(_MEASURED_SIZE, _MEASURED_SIZE)
    seconds = []
    for _ in range(_MEASURED_TIMES):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - start)
    copied = torch.ones(_COPIED_BYTES, dtype=torch.uint8)
    start = time.perf_counter()
    copied.clone()
    # What is copied is read and written. Processes of one machine share its memory: that is their link too.
    bandwidth = 2 * _COPIED_BYTES / (time.perf_counter() - start)
    return Device(
        name="this machine's processor",
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        bfloat16_flops=2 * _MEASURED_SIZE**3 / min(seconds),
        memory_bandwidth=bandwidth,
        link_bandwidth=bandwidth,
        words=(),
    )


def recognised_device(reported: str) -> Device | None:
    """The device of a name that torch reports, such as `NVIDIA H100 80GB HBM3`; None for others."""
    return next((device for device in DEVICES if all(word in reported for word in device.words)), None)
