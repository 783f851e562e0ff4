"""Soft prompts: the loss falls, only what helps is kept, a restored training equals the uninterrupted one."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from framework.core.errors import CheckpointError, ConfigError, DataError
from framework.gbc.commands.soft_prompt_options import SoftPromptOptions
from framework.gbc.commands.soft_prompts import (
    SoftPromptInputs,
    SoftPromptResult,
    best_loss_of,
    steps_done,
    train_soft_prompts,
)
from framework.gbc.execution.runner import RunOptions
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.testing.language_models import save_tiny_model
from framework.training.checkpoint.layout import FOLDER, list_checkpoints
from framework.training.checkpoint.read import read_tensors

TASKS = [{"id": str(i), "user": text, "expected": "north"} for i, text in enumerate(["ant", "bee", "cat", "dog"])]


def length_loss(trace: Trace) -> VerbalLoss:
    """Some loss that changes with the output."""
    return VerbalLoss(value=sum(map(ord, trace.output)) % 97 / 97, text="")


def worst(trace: Trace) -> VerbalLoss:
    return VerbalLoss(value=1.0, text="")


numbers = itertools.count()


def falling(trace: Trace) -> VerbalLoss:
    """The later, the better."""
    return VerbalLoss(value=1 / (1 + next(numbers)), text="")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    save_tiny_model(folder / "model", "qwen3")
    agents = [
        {"name": "a", "prompt": "A", "model": "m", "reads": ["user"], "max_new_tokens": 3},
        {"name": "end", "prompt": "B", "model": "m", "reads": ["a"], "max_new_tokens": 3},
    ]
    (folder / "graph.yaml").write_text(json.dumps({"agents": agents}))
    return folder


def train(world: Path, folder: Path, loss: str = "length_loss", num_train: int = 2, **options: Any) -> SoftPromptResult:
    settings: dict[str, Any] = {
        "num_tokens": 2,
        "steps": 4,
        "batch_size": 2,
        "evaluate_every": 2,
        "learning_rate": 0.05,
        "run": RunOptions(on_empty="keep"),
        **options,
    }
    inputs = SoftPromptInputs(
        graph=str(world / "graph.yaml"),
        models={
            "m": {"path": str(world / "model")},
            "n": {"url": "http://localhost:1/v1", "model": "x"},
        },
        model=settings.pop("model", "m"),
        loss=f"{__name__}:{loss}",
        target=settings.pop("target", "expected"),
        train=TASKS[:num_train],
        held_out=settings.pop("held_out", TASKS[num_train:]),
    )
    return train_soft_prompts(inputs, SoftPromptOptions(**settings), folder)


@pytest.mark.slow
def test_the_loss_falls(world: Path, tmp_path: Path):
    found = train(world, tmp_path, steps=15, evaluate_every=15)
    assert len(found.losses) == 15
    assert found.losses[-1] < found.losses[0] - 0.5


@pytest.mark.slow
def test_only_what_helps_is_kept(world: Path, tmp_path: Path):
    found = train(world, tmp_path, "worst")
    assert found.file is None
    assert found.best_loss == 1.0
    assert best_loss_of(tmp_path) is None


@pytest.mark.slow
def test_the_held_out_tasks_are_run_after_the_last_step_too(world: Path, tmp_path: Path):
    found = train(world, tmp_path, "falling", steps=3, evaluate_every=2)
    assert found.file is not None
    assert found.best_loss == best_loss_of(tmp_path)
    assert json.loads((tmp_path / "best/validation.json").read_text())["step"] == 3
    assert {name: tuple(value.shape) for name, value in load_file(found.file).items()} == {"a": (2, 32), "end": (2, 32)}


@pytest.mark.slow
def test_a_restored_training_equals_the_uninterrupted_one(world: Path, tmp_path: Path):
    whole = train(world, tmp_path / "whole", num_train=3)
    train(world, tmp_path / "parts", num_train=3, steps=2)
    assert steps_done(tmp_path / "parts") == 2
    second = train(world, tmp_path / "parts", num_train=3)
    assert second.losses == whole.losses
    assert second.best_loss == whole.best_loss
    ours, theirs = (read_tensors(list_checkpoints(tmp_path / name / FOLDER)[-1], "") for name in ("parts", "whole"))
    assert ours.keys() == theirs.keys()
    assert any("soft" in name for name in ours)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name])
    # Nothing is left to do.
    assert train(world, tmp_path / "parts", num_train=3) == second


@pytest.mark.slow
def test_what_cannot_be_trained(world: Path, tmp_path: Path):
    train(world, tmp_path / "longer", num_tokens=3, steps=1)
    with pytest.raises(CheckpointError):
        train(world, tmp_path / "longer")
    with pytest.raises(ConfigError, match="steps 0"):
        train(world, tmp_path, steps=0)
    with pytest.raises(ConfigError, match="0 held out"):
        train(world, tmp_path, held_out=[])
    for model in ("n", "z"):
        with pytest.raises(ConfigError, match=f"'{model}' is not a local model"):
            train(world, tmp_path, model=model)
    with pytest.raises(DataError, match=r"task '0' has no text 'right' to train for.*--target"):
        train(world, tmp_path, target="right")
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match="earlier version"):
        train(world, tmp_path)
