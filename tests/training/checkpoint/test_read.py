"""Reading without a trainer: only what is asked for, and no code in a file is run."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from framework.core.errors import CheckpointError
from framework.testing.checkpoints import newest
from framework.training.checkpoint.read import read_state, read_tensors


@pytest.mark.slow
def test_only_what_is_asked_for_is_loaded(trained: Path, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    load = torch.load

    def counting(*args: Any, **options: Any) -> Any:
        found = load(*args, **options)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(torch, "load", counting)
    average = read_tensors(newest(trained), "ema.")
    assert sum(sizes) == sum(tensor.numel() for tensor in average.values())


def test_no_code_in_a_checkpoint_is_run(run_dir: Path):
    checkpoint, touched = newest(run_dir), run_dir / "touched"

    class Attack:
        def __reduce__(self):
            return Path.touch, (touched,)

    (checkpoint / ".metadata").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(CheckpointError, match=r"\.metadata holds .*: give a checkpoint"):
        read_tensors(checkpoint, "model.")
    torch.save({"loops": Attack()}, checkpoint / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read"):
        read_state(checkpoint)
    assert not touched.exists()


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_checkpoints_of_python_3_13_are_read_by_others_and_theirs_by_it(run_dir: Path, module: str):
    checkpoint = newest(run_dir)
    metadata = checkpoint / ".metadata"
    records = pickle.dumps(pickle.loads(metadata.read_bytes()), protocol=2)
    written, count = re.subn(rb"cpathlib(\._local)?\nPosixPath\n", f"c{module}\nPosixPath\n".encode(), records)
    assert count == 1
    metadata.write_bytes(written)
    assert read_tensors(checkpoint, "model.")
