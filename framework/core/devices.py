"""The device that a command runs on."""

import torch

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
