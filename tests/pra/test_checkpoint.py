"""A model out of a run's checkpoint, and refusals that say what is wrong."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from framework.core.errors import CheckpointError
from framework.pra.checkpoint import check_architecture, load_objective, load_pra
from framework.pra.commands.export import write_export
from framework.pra.loss import ObjectiveConfig
from framework.pra.module import PRAModule
from framework.testing.faults import flip_bytes, make_checkpoint, truncate
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.checkpoint.layout import FOLDER, list_checkpoints
from framework.training.export import ExportOptions

CONFIG = tiny_config(variant="low_dim", latent="sphere")
OBJECTIVE = ObjectiveConfig(noise_scale=0.25, head_repeats=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PRAModule]:
    """A run of three steps, and its module."""
    run_dir = tmp_path_factory.mktemp("run")
    module = tiny_module(CONFIG, objective=OBJECTIVE)
    callbacks = [Checkpoints(every_n_steps=2)]
    trainer = quiet_trainer(run_dir, callbacks=callbacks, enable_checkpointing=True, max_epochs=1)
    trainer.fit(module, datamodule=Batches([tiny_batch(CONFIG, 2, seed=seed) for seed in range(3)]))
    return run_dir, module


def newest(run_dir: Path) -> Path:
    return list_checkpoints(run_dir / FOLDER)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_the_weights_of_a_run(trained: tuple[Path, PRAModule], weights: str):
    run_dir, module = trained
    expected = module.ema if weights == "ema" else module.model
    for place in (run_dir, newest(run_dir)):
        model = load_pra(place, weights)
        assert model.config == CONFIG
        assert not model.training
        for name, value in expected.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name
    # Tables are not saved but made anew.
    assert torch.equal(load_pra(run_dir).transformer.rotary.cosine, module.model.transformer.rotary.cosine)


def test_the_average_is_the_default_and_differs(trained: tuple[Path, PRAModule]):
    run_dir, _ = trained
    averaged, raw = load_pra(run_dir), load_pra(str(run_dir), "raw")
    assert not torch.equal(averaged.head.network.project_out.weight, raw.head.network.project_out.weight)
    assert torch.equal(
        averaged.head.network.project_out.weight, load_pra(run_dir, "ema").head.network.project_out.weight
    )


def test_the_objective_of_a_run(trained: tuple[Path, PRAModule]):
    assert load_objective(trained[0]) == OBJECTIVE


def test_a_damaged_checkpoint(trained: tuple[Path, PRAModule], tmp_path: Path):
    copy = Path(shutil.copytree(newest(trained[0]), tmp_path / "copy"))
    flip_bytes(copy / "__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"copy: __0_0\.distcp does not match its checksum: use another"):
        load_pra(copy)
    truncate(copy / "__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"copy: __0_0\.distcp has \d+ bytes instead of \d+: use another"):
        load_pra(copy)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"architecture": {"layers": 3}},
        {"architecture": asdict(CONFIG)},
        {"architecture": {**asdict(CONFIG), "width": 17}},
    ],
    ids=["no architecture", "another kind", "no weights", "impossible"],
)
def test_a_checkpoint_of_something_else(tmp_path: Path, state: dict[str, object]):
    path = make_checkpoint(tmp_path / "other", {"weight": torch.ones(2)}, state)
    with pytest.raises(CheckpointError, match=r"other is not of a PRA model.*: give a checkpoint of a PRA run"):
        load_pra(path)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_missing_checkpoint(tmp_path: Path, weights: str):
    with pytest.raises(CheckpointError, match=r"nowhere does not exist"):
        load_pra(tmp_path / "nowhere", weights)
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_objective(tmp_path)


def test_the_same_architecture_passes():
    check_architecture(asdict(CONFIG), tiny_config(variant="low_dim", latent="sphere"))


def test_every_difference_is_named():
    saved = asdict(tiny_config(depth=2, variant="pra"))
    del saved["num_classes"]
    saved["dropout"] = 0.5
    with pytest.raises(CheckpointError, match="the checkpoint is of another model") as error:
        check_architecture(saved, tiny_config())
    assert error.value.problem == (
        "the checkpoint is of another model (depth is 2 in the checkpoint and 1 in the recipe; "
        "dropout is 0.5 in the checkpoint and None in the recipe; "
        "num_classes is None in the checkpoint and 3 in the recipe)"
    )


def test_a_checkpoint_that_is_older_than_a_setting_has_its_default():
    saved = asdict(tiny_config())
    del saved["head_jumps"], saved["head_modulation"]
    check_architecture(saved, tiny_config())
    with pytest.raises(CheckpointError, match=r"head_jumps is False in the checkpoint and True in the recipe\)"):
        check_architecture(saved, tiny_config(head_jumps=True))


def test_a_checkpoint_with_a_setting_that_has_been_removed_is_of_the_same_architecture():
    check_architecture({**asdict(tiny_config()), "head_jump_guidance": 1.0}, tiny_config())
    with pytest.raises(CheckpointError, match=r"the checkpoint has a head that learned guidance .* learn jumps anew"):
        check_architecture({**asdict(tiny_config()), "head_jump_guidance": 3.0}, tiny_config())


def test_a_checkpoint_with_another_head_or_of_a_newer_version_is_named(tmp_path: Path):
    for changed, message in (
        ({"head_jump_guidance": 3.0}, r"model has a head that learned guidance \(head_jump_guidance 3.0\)"),
        ({"head_wings": 2}, r"model is not of a PRA model \(.*head_wings.*\): give a checkpoint"),
    ):
        state = {"architecture": {**asdict(CONFIG), **changed}, "objective": asdict(OBJECTIVE)}
        path = make_checkpoint(tmp_path / str(len(changed)) / next(iter(changed)) / "model", {}, state)
        with pytest.raises(CheckpointError, match=message):
            load_pra(path)
        with pytest.raises(CheckpointError, match=message):
            write_export(path, tmp_path / "out" / "model.safetensors", ExportOptions())
    state = {"architecture": asdict(CONFIG), "objective": {"wings": 2}}
    with pytest.raises(CheckpointError, match=r"newer is not of a PRA model \(.*wings"):
        load_objective(make_checkpoint(tmp_path / "newer", {}, state))


def test_another_kind_of_checkpoint():
    with pytest.raises(CheckpointError, match="the checkpoint is not of a PRA model: choose another run folder"):
        check_architecture(None, CONFIG)


def test_a_run_does_not_go_on_from_another_model(trained: tuple[Path, PRAModule], tmp_path: Path):
    module = tiny_module(tiny_config(variant="low_dim", latent="sphere", width=32, depth=2))
    with pytest.raises(CheckpointError, match=r"depth is 1 .* and 2 .*; width is 16 .* and 32 in the recipe"):
        quiet_trainer(tmp_path, max_steps=5).fit(
            module, datamodule=Batches([tiny_batch(CONFIG, 2)]), ckpt_path=newest(trained[0]), weights_only=True
        )
