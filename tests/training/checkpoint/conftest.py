"""A run that has saved three checkpoints."""

import shutil
from pathlib import Path

import pytest

from framework.testing.checkpoints import fit
from framework.training.callbacks.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 2, 4 and 5."""
    run_dir = tmp_path_factory.mktemp("trained")
    fit(run_dir, Checkpoints(every_n_steps=2, keep_last=3), batches=5)
    return run_dir


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
