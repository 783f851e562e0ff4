"""Soft prompts: the loss falls, only what helps is kept, a restored training equals the uninterrupted one."""

from typing import Any

import pytest
import torch

from framework.core.errors import CheckpointError, ConfigError
from framework.gbc.execution.runner import RunOptions
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.prompt_search.soft_prompt import SoftPromptOptions, SoftPromptTrainer
from framework.testing.language_models import tiny_local_model

GRAPH = Graph(
    agents=(
        Agent(name="a", prompt="A", model="m", reads=("user",), max_new_tokens=3),
        Agent(name="end", prompt="B", model="m", reads=("a",), max_new_tokens=3),
    )
)
TASKS = [{"id": str(i), "user": text} for i, text in enumerate(["ant", "bee", "cat", "dog"])]


def length_loss(trace: Trace) -> VerbalLoss:
    """Some loss that changes with the output."""
    return VerbalLoss(value=sum(map(ord, trace.output)) % 97 / 97, text="")


def worst(trace: Trace) -> VerbalLoss:
    return VerbalLoss(value=1.0, text="")


def trainer(loss: Any = length_loss, **options: Any) -> SoftPromptTrainer:
    settings: dict[str, Any] = {
        "num_tokens": 2,
        "steps": 4,
        "batch_size": 2,
        "evaluate_every": 2,
        "learning_rate": 0.05,
        "run": RunOptions(on_empty="keep"),
        **options,
    }
    return SoftPromptTrainer(
        GRAPH,
        {"m": tiny_local_model()},
        "m",
        loss=loss,
        target=lambda task: "north",
        options=SoftPromptOptions(**settings),
    )


def test_the_loss_falls():
    training = trainer(steps=15, evaluate_every=15)
    training.fit(TASKS[:2], TASKS[2:])
    assert training.losses[-1] < training.losses[0] - 0.5
    assert training.evaluations == 2


def test_only_what_helps_is_kept():
    training = trainer(worst)
    training.fit(TASKS[:2], TASKS[2:])
    assert len(training.model.soft) == 0
    assert training.best_loss == 1.0


def test_a_restored_training_equals_the_uninterrupted_one(tmp_path):
    whole, first, second = trainer(), trainer(steps=2), trainer()
    whole.fit(TASKS[:3], TASKS[3:])
    first.fit(TASKS[:3], TASKS[3:], save_to=tmp_path / "soft" / "state.pt")
    second.restore(tmp_path / "soft" / "state.pt")
    assert second.step == 2
    second.fit(TASKS[:3], TASKS[3:])
    assert second.losses == whole.losses
    assert second.best_loss == whole.best_loss
    for name, value in whole.soft.items():
        assert torch.equal(value, second.soft[name])


def test_what_cannot_be_trained(tmp_path):
    with pytest.raises(CheckpointError, match="no state"):
        trainer().restore(tmp_path / "none.pt")
    trainer(num_tokens=3).save(tmp_path / "longer.pt")
    with pytest.raises(CheckpointError, match="no state"):
        trainer().restore(tmp_path / "longer.pt")
    with pytest.raises(ConfigError, match="steps 0"):
        trainer(steps=0)
    with pytest.raises(ConfigError, match="0 held out"):
        trainer().fit(TASKS, [])
    models = {"m": tiny_local_model()}
    options: dict[str, Any] = {"loss": worst, "target": str, "options": SoftPromptOptions()}
    with pytest.raises(ConfigError, match="no local model"):
        SoftPromptTrainer(GRAPH, models, "n", **options)
    with pytest.raises(ConfigError, match="'z' is no agent"):
        SoftPromptTrainer(GRAPH, models, "m", agents=["z"], **options)
