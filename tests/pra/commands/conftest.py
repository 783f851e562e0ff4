"""A run of two steps, for the commands that start from one."""

from pathlib import Path

import pytest

from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.training.callbacks.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("run")
    trainer = quiet_trainer(run_dir, callbacks=[Checkpoints()], enable_checkpointing=True, max_steps=2)
    trainer.fit(tiny_module(), datamodule=Batches([tiny_batch(tiny_config(), 2, seed=seed) for seed in range(2)]))
    return run_dir
