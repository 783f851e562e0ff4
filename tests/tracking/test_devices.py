"""Devices are found by the names that users and torch give them."""

import pytest
import torch
from lightning.fabric.utilities.throughput import get_available_flops

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


@pytest.mark.parametrize("reported", ["NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"])
def test_peaks_are_lightnings_where_it_is_right(reported: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: reported)
    found = recognised_device(reported)
    assert found is not None
    assert get_available_flops(torch.device("cuda"), torch.bfloat16) == found.bfloat16_flops


@pytest.mark.filterwarnings("ignore:FLOPs not found")
@pytest.mark.parametrize("reported", ["NVIDIA H200", "NVIDIA B200", "NVIDIA L40S", "NVIDIA GeForce RTX 4090"])
def test_lightning_is_still_wrong_about_the_others(reported: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: reported)
    found = recognised_device(reported)
    assert found is not None
    theirs = get_available_flops(torch.device("cuda"), torch.bfloat16)
    assert theirs != found.bfloat16_flops, f"Lightning now knows the peak of {reported}: see decision 018"
