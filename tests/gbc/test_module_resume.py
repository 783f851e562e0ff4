"""A training of agents that is killed goes on bit by bit."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.gbc.tracking.prompt_history import read_prompts
from framework.gbc.training.module import GBCModule
from framework.testing.agent_training import ALL, OPTIMIZER, fit, make_module, search_config
from framework.testing.agents import make_world
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, name_of
from framework.training.checkpoint.read import read_state, read_tensors


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


class Killed(BaseException):
    """Stands for a signal."""


def state_at(run_dir: Path, step: int) -> dict[str, Any]:
    """What a checkpoint holds of the training, without the seconds that it took."""
    content = read_state(run_dir / FOLDER / name_of(step))
    state = content["gbc"]
    del state["budget"]["wall_seconds"]
    for spending in state["budget"]["by_agent"].values():
        del spending["seconds"]
    return {
        "gbc": state,
        "position": content["ShardDataModule"],
        "optimizer": content["optimizer_states"],
        "schedule": content["lr_schedulers"],
        "tensors": {k: v.tolist() for k, v in read_tensors(run_dir / FOLDER / name_of(step), "").items()},
    }


class KillAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("where", ["between steps", "between a proposal and its decision"])
def test_a_killed_training_equals_an_uninterrupted_one(world: Path, tmp_path: Path, monkeypatch, where: str):
    def module() -> GBCModule:
        return make_module(world, soft=ALL, optimizer=OPTIMIZER, search=search_config(world, every_n_steps=2))

    fit(world, tmp_path / "whole", module(), steps=6, val_check_interval=2)
    stopped = module()
    callbacks: list[Callback] = [KillAt(3)]
    if where != "between steps":
        callbacks, done, held_out_loss = [], [], stopped._held_out_loss

        def kill(graph: Any) -> float:
            # The held-out tasks are run twice in every update: for the prompts as they are, and for the proposal.
            done.append(graph)
            if len(done) == 4:
                raise Killed
            return held_out_loss(graph)

        stopped._held_out_loss = kill  # type: ignore[method-assign]
    with pytest.raises(Killed):
        fit(world, tmp_path / "killed", stopped, steps=6, val_check_interval=2, callbacks=callbacks)
    assert [path.name for path in list_checkpoints(tmp_path / "killed" / FOLDER)][-1] == name_of(3)
    fit(world, tmp_path / "killed", module(), steps=6, val_check_interval=2)
    whole, killed = (state_at(tmp_path / name, 6) for name in ("whole", "killed"))
    assert whole["gbc"]["search"]["state"]["step"] == 3
    assert whole["gbc"]["best_loss"] is not None
    assert killed == whole
    # Steps that were made again are listed once.
    tried, again = (read_prompts(tmp_path / name) for name in ("whole", "killed"))
    assert again == tried
    assert [each.trial for each in tried] == [0, 1, 2]
    for name in ("soft_prompts.safetensors", "adapters/first/adapter_model.safetensors"):
        assert (tmp_path / "killed/best" / name).read_bytes() == (tmp_path / "whole/best" / name).read_bytes()


@pytest.mark.slow
def test_a_validation_after_the_last_checkpoint_is_not_forgotten(world: Path, tmp_path: Path):
    stopped, again = (make_module(world, soft=ALL, optimizer=OPTIMIZER) for _ in range(2))
    with pytest.raises(Killed):
        fit(world, tmp_path, stopped, steps=4, val_check_interval=2, callbacks=[KillAt(2)])
    assert stopped.best.loss is not None
    before = {path: path.read_bytes() for path in (tmp_path / "best").rglob("*") if path.is_file()}
    assert {path.name for path in before} > {"validation.json", "soft_prompts.safetensors"}
    fit(world, tmp_path, again, steps=3, val_check_interval=2)
    assert again.best.loss == stopped.best.loss
    assert all(path.read_bytes() == content for path, content in before.items())
