"""A device by its name."""

import pytest
import torch

from framework.core.devices import pick_device
from framework.core.errors import ConfigError


def test_names():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cdua", "cuda:99"])
def test_what_is_not_there(name: str):
    with pytest.raises(ConfigError, match=f"device '{name}' cannot be used .*: use cpu"):
        pick_device(name)
