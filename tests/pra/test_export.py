"""An export read back, verified and loaded; `tests/cli/test_export.py` makes them from checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from framework.core.errors import CheckpointError
from framework.core.io import sha256_of
from framework.pra.export import (
    ExportedModel,
    Origin,
    check_tensors,
    initialise_from_export,
    is_exported,
    load_exported,
    warn_of_other_classes,
)
from framework.pra.loss import ObjectiveConfig
from framework.pra.network.head import JUMP_PART
from framework.pra.network.model import PRA
from framework.testing.faults import flip_bytes
from framework.testing.models import tiny_config, tiny_model
from framework.tracking.data_identity import DataIdentity, SetIdentity

ORIGIN = Origin(weights="ema", step=7, manifest_sha256="a" * 64, git_revision=None, framework_version="0.0")


def write(folder: Path, model: PRA) -> ExportedModel:
    entry = folder / "pra.safetensors"
    save_file(model.state_dict(), entry)
    exported = ExportedModel(
        architecture=model.config,
        objective=ObjectiveConfig(noise_scale=0.3),
        origin=ORIGIN,
        entry=entry,
        files={entry.name: sha256_of(entry)},
    )
    exported.write()
    return exported


def test_what_is_written_is_read_from_the_folder_and_from_the_weights(tmp_path: Path):
    exported = write(tmp_path, tiny_model())
    assert ExportedModel.read(tmp_path) == exported
    assert ExportedModel.read(exported.entry) == exported
    with pytest.raises(CheckpointError, match=r"config\.json is of pra\.safetensors, not of other\.safetensors"):
        ExportedModel.read(tmp_path / "other.safetensors")


def test_what_is_meant_as_an_export(tmp_path: Path):
    assert not is_exported(tmp_path)
    assert is_exported(tmp_path / "not-there.safetensors")
    assert is_exported(tmp_path / "not-there.safetensors.index.json")
    write(tmp_path, tiny_model())
    assert is_exported(tmp_path)


def test_the_model_of_an_export(tmp_path: Path):
    model = tiny_model(latent="sphere")
    exported = write(tmp_path, model)
    loaded = load_exported(tmp_path)
    assert loaded.config == model.config
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    flip_bytes(exported.entry)
    with pytest.raises(CheckpointError, match=r"pra\.safetensors does not match its checksum"):
        load_exported(tmp_path)


def test_a_model_and_its_average_start_from_an_export(tmp_path: Path):
    model, average, exported = tiny_model(1), tiny_model(2), tiny_model(3)
    write(tmp_path, exported)
    initialise_from_export(model, average, tmp_path)
    for target in (model, average):
        assert all(torch.equal(value, exported.state_dict()[name]) for name, value in target.state_dict().items())
    other = PRA(replace(tiny_config(), width=32, depth=2))
    with pytest.raises(CheckpointError, match=r"width is 16 there and 32 in the recipe; depth is 1 there and 2"):
        initialise_from_export(other, other, tmp_path)


def test_tensors_of_another_model_are_named():
    shapes = {name: tensor.shape for name, tensor in tiny_model().state_dict().items()}
    check_tensors(tiny_config(), shapes, "it is")
    norm = "transformer.norm.weight"
    for changed in (
        {**shapes, "more": torch.Size([1])},
        {name: shape for name, shape in shapes.items() if name != norm},
        {**shapes, norm: torch.Size([17])},
    ):
        [different] = {name for name in shapes.keys() | changed.keys() if shapes.get(name) != changed.get(name)}
        with pytest.raises(CheckpointError, match=f"it is.*{different}"):
            check_tensors(tiny_config(), changed, "it is")


def test_initial_weights_of_other_classes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    shards = SetIdentity(path="shards", digest="0" * 64, num_samples=3)
    data = DataIdentity(classes=("cat", "cow", "dog"), train=(shards,))
    exported = replace(write(tmp_path, tiny_model()), data=data)
    exported.write()
    assert ExportedModel.read(tmp_path) == exported
    warn_of_other_classes(tmp_path, ("cat", "cow", "dog"))
    assert caplog.text == ""
    warn_of_other_classes(tmp_path, ("cat", "dog", "eel"))
    assert "other classes: 'dog' was class 2 and is 1" in caplog.text


def test_a_head_begins_to_learn_jumps_from_weights_without(tmp_path: Path):
    write(tmp_path, tiny_model(1))
    model, average = (tiny_model(seed, head_jumps=True) for seed in (2, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    initialise_from_export(model, average, tmp_path)
    exported = tiny_model(1).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, exported.get(name, before[name]))
    assert {name.split(".")[1] for name in before.keys() - exported.keys()} == {JUMP_PART}


def test_what_weights_know_of_jumps_is_not_forgotten(tmp_path: Path):
    write(tmp_path, tiny_model(1, head_jumps=True))
    model = tiny_model()
    with pytest.raises(CheckpointError, match="head_jumps is True there and False in the recipe"):
        initialise_from_export(model, model, tmp_path)


def test_an_export_with_a_setting_that_has_been_removed(tmp_path: Path):
    write(tmp_path, tiny_model())
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    content["objective"]["jump_loss"] = "mean_flow"
    content["architecture"]["head_jump_guidance"] = 1.0
    file.write_text(json.dumps(content))
    assert ExportedModel.read(tmp_path).objective == ObjectiveConfig(noise_scale=0.3)
    content["architecture"]["head_jump_guidance"] = 3.0
    file.write_text(json.dumps(content))
    with pytest.raises(
        CheckpointError,
        match=r"config.json has a head that learned guidance \(head_jump_guidance 3.0\), which has been removed",
    ):
        ExportedModel.read(tmp_path)
