"""Damage that is exactly what it says, and checkpoints without a training."""

from pathlib import Path

import pytest
import torch

from framework.testing.faults import flip_bytes, make_checkpoint, truncate
from framework.training.checkpoint.read import find_checkpoint, read_state, read_tensors


def test_bytes_are_inverted_where_they_should_be(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(8)))
    flip_bytes(path, 2, at=0.25)
    assert path.read_bytes() == bytes([0, 1, 0xFD, 0xFC, 4, 5, 6, 7])
    with pytest.raises(AssertionError):
        flip_bytes(path, 5)


def test_a_file_is_cut_at_its_end(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(8)))
    truncate(path, 3)
    assert path.read_bytes() == bytes(range(5))


def test_a_checkpoint_is_complete_and_read_back(tmp_path: Path):
    tensors = {"model.a": torch.arange(3.0), "ema.a": torch.ones(2)}
    path = make_checkpoint(tmp_path / "step=00000005", tensors, {"key": [1, "x"]}, step=5)
    checkpoint = find_checkpoint(path)
    assert read_state(checkpoint)["key"] == [1, "x"]
    assert torch.equal(read_tensors(checkpoint, "model.")["a"], torch.arange(3.0))
    assert read_tensors(checkpoint, "ema.").keys() == {"a"}
