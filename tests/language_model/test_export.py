"""The folder that a trained language model is exported to."""

from pathlib import Path

import pytest
import torch

from framework.cli.main import main
from framework.core.errors import ConfigError
from framework.gbc.environments.microworld.world import load_model
from framework.language_model.export import export_language_model, write_export
from framework.language_model.module import load_tokenizer
from framework.training.checkpoint.read import find_checkpoint, read_tensors
from framework.training.export import ExportOptions


@pytest.mark.slow
def test_two_steps_by_the_command_and_its_export(run: Path):
    assert "accuracy/validation" in (run / "run/metrics.csv").read_text()
    export_language_model(run / "run", run / "model", dtype="bfloat16")
    main(["export", str(run / "run"), str(run / "whole")])
    assert (run / "whole/model.safetensors").stat().st_size > (run / "model/model.safetensors").stat().st_size
    model = load_model(str(run / "model"))
    assert isinstance(load_tokenizer(run / "model").chat_template, str)
    trained = read_tensors(find_checkpoint(run / "run"), "model.")
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, trained.get(name, trained["model.embed_tokens.weight"]).bfloat16().float())


def test_an_export_is_replaced_only_when_asked(run: Path, tmp_path: Path):
    checkpoint, target = find_checkpoint(run / "run"), tmp_path / "model"
    told = write_export(checkpoint, target, ExportOptions())
    assert told == f"language model of step 2 in {target}"
    with pytest.raises(ConfigError, match=r"exists.*--overwrite"):
        write_export(checkpoint, target, ExportOptions())
    assert write_export(checkpoint, target, ExportOptions(overwrite=True)) == told
