"""What accelerators can do: memory, peak speed and bandwidths, from data sheets (decision 018)."""

from dataclasses import dataclass

from framework.core.errors import ConfigError

GIB = 2**30


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
    raise ConfigError(f"device {name!r} is not known", hint=f"use one of {known}, or its memory such as 48GiB")


def recognised_device(reported: str) -> Device | None:
    """The device of a name that torch reports, such as `NVIDIA H100 80GB HBM3`; None for others."""
    return next((device for device in DEVICES if all(word in reported for word in device.words)), None)
