"""Devices are found by the names that users and torch give them."""

import pytest

from framework.core.errors import ConfigError
from framework.tracking.devices import DEVICES, named_device, recognised_device


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("Tesla T4", None),
    ],
)
def test_reported_names(reported: str, name: str | None):
    found = recognised_device(reported)
    assert (found.name if found else None) == name


def test_names_of_the_table():
    assert all(named_device(device.name.lower()) is device for device in DEVICES)
    with pytest.raises(ConfigError, match=r"use one of A100-40GB, .*H200"):
        named_device("H900")
