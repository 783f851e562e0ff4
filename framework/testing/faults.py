"""Checkpoints made without training, and damage to files."""

import io
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

    def write() -> list[Path]:
        write_tensors(partial, tensors, None)
        return [partial / ".metadata", *partial.glob("*.distcp")]

    stream = io.BytesIO()
    torch.save(state, stream)
    manifest = Manifest(step=step, kind="dcp", world_size=1, strategy="test")
    complete(
        Save(
            partial=partial,
            target=path,
            manifest=manifest,
            state=stream.getvalue(),
            write=write,
            retention=None,
            group=None,
        )
    )
    return path
