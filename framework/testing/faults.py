"""Checkpoints made without training, damage to files, and a kill in the middle of an access to them."""

import io
import os
import signal
import sys
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from framework.training.checkpoint.layout import PARTIAL, Manifest
from framework.training.checkpoint.tensors import write_tensors
from framework.training.checkpoint.writing import Save, complete


def flip_bytes(path: Path, count: int = 16, *, at: float = 0.5) -> None:
    """Inverts bytes of a file.

    Args:
        path: the file.
        count: how many bytes, 1 or more.
        at: where they begin, as a fraction of the file's length in [0, 1).
    """
    content = bytearray(path.read_bytes())
    first = int(at * len(content))
    assert 0 < count <= len(content) - first
    content[first : first + count] = bytes(byte ^ 0xFF for byte in content[first : first + count])
    path.write_bytes(content)


def truncate(path: Path, count: int = 100) -> None:
    """Cuts `count` bytes off the end of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:-count])


def make_checkpoint(
    path: Path, tensors: dict[str, Shaped[Tensor, "..."]], state: dict[str, object], *, step: int = 1
) -> Path:
    """A complete checkpoint, without a training that made it.

    Args:
        path: its folder.
        tensors: by their names in the module.
        state: the rest of it.
        step: optimizer steps.
    """
    partial = path.with_name(f"{path.name}{PARTIAL}")
    partial.mkdir(parents=True)

    stream = io.BytesIO()
    torch.save(state, stream)
    manifest = Manifest(step=step, kind="dcp", world_size=1, strategy="test")
    complete(
        Save(
            partial=partial,
            target=path,
            manifest=manifest,
            state=stream.getvalue(),
            write=lambda: write_tensors(partial, tensors, None),
            retention=None,
            group=None,
        )
    )
    return path


DISK_EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.scandir")
"""Audit events of accesses to the file system."""


def kill_at_event(number: int, under: str) -> None:
    """SIGKILL to this process before its access of that number to what lies in a folder; -1: never, but counts."""
    count, whole_folder = 0, Path(under).is_dir()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in DISK_EVENTS:
            return
        name = str(arguments[0])
        # `rmtree` removes by names within an opened folder.
        if name.startswith(under) or (whole_folder and event in ("os.remove", "os.rmdir") and not name.startswith("/")):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
