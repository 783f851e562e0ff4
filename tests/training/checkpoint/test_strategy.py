"""Saving and loading within a training: what a checkpoint holds, and what is refused."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule

from framework.core.errors import CheckpointError, ConfigError
from framework.testing.checkpoints import fit, newest, steps_in
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.checkpoint.layout import (
    FOLDER,
    Manifest,
)
from framework.training.checkpoint.read import find_checkpoint, read_state, read_tensors


@pytest.mark.slow
def test_what_a_checkpoint_holds(trained: Path):
    checkpoint = newest(trained)
    manifest = Manifest.read(checkpoint)
    assert (manifest.step, manifest.world_size, manifest.kind) == (5, 1, "dcp")
    assert manifest.packages["torch"] == version("torch")
    files = {path.name for path in checkpoint.iterdir()}
    assert files == {*manifest.files, "manifest.json"} == {"__0_0.distcp", ".metadata", "state.pt", "manifest.json"}
    assert all((checkpoint / name).stat().st_size == record.size for name, record in manifest.files.items())
    assert (trained / FOLDER / "newest").read_text() == "step=00000005"
    state = read_state(checkpoint)
    assert state["global_step"] == 5
    assert state["architecture"]["width"] == 16
    assert state["objective"]["rollout_passes"] == 1
    assert len(state["lr_schedulers"]) == 1
    [optimizer] = state["optimizer_states"]
    assert optimizer["state"]["model.head.network.project_in.weight"]["step"] == 5
    model, average = read_tensors(checkpoint, "model."), read_tensors(checkpoint, "ema.")
    assert model.keys() == average.keys() == dict(tiny_module_model().named_parameters()).keys()
    moments = read_tensors(checkpoint, "optimizers.0.model.head.network.project_in.")
    assert moments.keys() == {"weight.exp_avg", "weight.exp_avg_sq", "bias.exp_avg", "bias.exp_avg_sq"}
    assert find_checkpoint(trained) == find_checkpoint(str(checkpoint)) == checkpoint


def tiny_module_model() -> torch.nn.Module:
    module = tiny_module()
    module.configure_model()
    return module.model


def test_a_checkpoint_of_another_model(trained: Path, tmp_path: Path):
    class Other(LightningModule):
        def __init__(self, more: bool) -> None:
            super().__init__()
            self.model = torch.nn.Linear(2, 2)
            self.extra = torch.nn.Linear(2, 2) if more else None

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.model(torch.ones(2)).sum()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters())

    data = [tiny_batch(tiny_config(), 2)]
    with pytest.raises(CheckpointError, match=r"is of another model \(ema\..* is only in the checkpoint and \d+ more"):
        quiet_trainer(tmp_path, max_steps=9).fit(Other(False), datamodule=Batches(data), ckpt_path=trained)
    run = [Checkpoints(every_n_steps=1)]
    quiet_trainer(tmp_path, max_steps=1, callbacks=run, enable_checkpointing=True).fit(
        Other(False), datamodule=Batches(data)
    )
    with pytest.raises(CheckpointError, match=r"extra\.bias is only in the model and 1 more"):
        quiet_trainer(tmp_path, max_steps=9).fit(Other(True), datamodule=Batches(data), ckpt_path=tmp_path)


def test_state_that_could_not_be_read_again_is_not_saved(tmp_path: Path):
    class Odd(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"folder": Path("x")}

    with pytest.raises(CheckpointError, match="holds more than plain types in callbacks: give only plain types"):
        fit(tmp_path, Checkpoints(every_n_steps=1), Odd(), batches=2)
    assert steps_in(tmp_path) == []


def test_another_strategy_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"strategy SingleDeviceStrategy saves no such checkpoints: take one of"):
        fit(tmp_path, Checkpoints(), batches=1, strategy="auto")
