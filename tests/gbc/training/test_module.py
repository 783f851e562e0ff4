"""Training of agents: soft prompts, adapters and searched prompts, what fails, budgets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from framework.core.errors import CheckpointError, ConfigError, TrainingError
from framework.gbc.execution.budget import BudgetConfig
from framework.gbc.graph.spec import load_graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.agent_parameters import load_soft_prompts
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.language_models.lora import AdapterConfig
from framework.gbc.tracking.episode_records import read_blame
from framework.gbc.tracking.prompt_history import read_prompts
from framework.gbc.training.failure_limit import FailureConfig
from framework.gbc.training.parameters import SoftConfig
from framework.testing.agent_training import ALL, OPTIMIZER, SOFT, fit, make_module, search_config
from framework.testing.agents import make_world
from framework.testing.servers.model_server import serving
from framework.tracking.metric_files import read_metrics
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, name_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


@pytest.mark.slow
def test_soft_prompts_and_gates_learn(world: Path, tmp_path: Path):
    module = make_module(world, soft=SOFT, optimizer=OPTIMIZER)
    fit(world, tmp_path, module, steps=12, validation=None)
    found = read_metrics(tmp_path)
    losses = [found["loss/target_nats_per_token"][step] for step in range(12)]
    assert losses[-1] < losses[0] - 0.2
    assert (module.steering.gates - 1).abs().max() > 1e-3
    assert {"credit_own_by_agent/first", "budget/tokens", "budget_calls_by_agent/first"} <= found.keys()
    assert (tmp_path / "best/graph.yaml").exists()
    # Nothing was validated: the last ones.
    assert best_soft(tmp_path).keys() == module.steering.soft.keys()
    assert all(torch.equal(value, module.steering.soft[name]) for name, value in best_soft(tmp_path).items())


def best_soft(run_dir: Path) -> dict[str, torch.Tensor]:
    soft, _ = load_soft_prompts(run_dir / "best/soft_prompts.safetensors", device="cpu", hidden_size=32)
    return {name: value.detach() for name, value in soft.items()}


@pytest.mark.slow
def test_adapters_learn_and_are_used(world: Path, tmp_path: Path):
    soft = SoftConfig(model="m", num_tokens=0, adapters=AdapterConfig(rank=2))
    module = make_module(world, soft=soft, optimizer=OPTIMIZER)
    before = {name: value.clone() for name, value in module_weights(world).items()}
    fit(world, tmp_path, module, steps=8, validation=None)
    found = read_metrics(tmp_path)
    losses = [found["loss/target_nats_per_token"][step] for step in range(8)]
    assert losses[-1] < losses[0] - 0.2
    assert not (tmp_path / "best/soft_prompts.safetensors").exists()
    config = LocalModelConfig(path=str(world / "model"), adapters=str(tmp_path / "best/adapters"))
    read = LocalModel.load(config).adapters.values
    assert read.keys() == {"first", "last"}
    assert all(torch.equal(value, module.steering.adapters[name]) for name, value in read.items())
    (local,) = module.system.models.values()
    assert isinstance(local, LocalModel)
    assert {name.replace(".base_layer", "") for name, _ in local.model.named_parameters()} == before.keys()
    for name, value in local.model.named_parameters():
        assert torch.equal(value, before[name.replace(".base_layer", "")])


def module_weights(world: Path) -> dict[str, torch.Tensor]:
    return dict(LocalModel.load(LocalModelConfig(path=str(world / "model"))).model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("searched", [False, True])
def test_the_best_on_validation_are_kept(world: Path, tmp_path: Path, searched: bool):
    search = search_config(world, every_n_steps=4) if searched else None
    module = make_module(world, soft=ALL, search=search, optimizer=replace(OPTIMIZER, learning_rate=1.0))
    # The first proposal is kept.
    held_out = iter([0.5, 0.25])
    module._held_out_loss = lambda graph: next(held_out)  # type: ignore[method-assign]
    seen: list[tuple[float, bool, dict[str, Any]]] = []

    class Watch(Callback):
        def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
            state = None if pl_module.search is None else pl_module.search.state
            kept = [] if state is None else [trial for trial in state.trials if trial.kept]
            if kept and not any(each[1] for each in seen):
                # What was written with the prompts that were kept, before they were validated.
                found = json.loads((tmp_path / "best/validation.json").read_text())
                assert found == {"step": trainer.global_step, "loss": None}
                assert all(torch.equal(v, pl_module.steering.soft[name]) for name, v in best_soft(tmp_path).items())
            values = {name: value.detach().clone() for name, value in pl_module.steering.soft.items()}
            seen.append((float(trainer.callback_metrics["validation/loss"]), bool(kept), values))

    fit(world, tmp_path, module, steps=6, val_check_interval=1, callbacks=[Watch()])
    losses = [loss for loss, _, _ in seen]
    assert len(losses) == 6
    assert len(set(losses)) > 1
    # With other prompts the comparison begins anew.
    start = next((index for index, (_, kept, _) in enumerate(seen) if kept), 0)
    assert start == (3 if searched else 0)
    best = min(range(start, 6), key=lambda index: losses[index])
    assert all(torch.equal(value, seen[best][2][name]) for name, value in best_soft(tmp_path).items())
    assert module.best.loss == losses[best]
    assert json.loads((tmp_path / "best/validation.json").read_text()) == {"step": best + 1, "loss": losses[best]}


@pytest.mark.slow
def test_prompts_are_searched(world: Path, tmp_path: Path):
    module = make_module(world, search=search_config(world))
    fit(world, tmp_path, module, steps=3)
    assert module.search is not None
    assert module.search.state is not None and module.search.state.step == 3  # noqa: PT018
    assert len(module.search.state.trials) == 3
    tried = read_prompts(tmp_path)
    assert [(each.step, each.trial, each.after, each.loss, each.kept) for each in tried] == [
        (number, number, *trial.changes.values(), trial.loss, trial.kept)
        for number, trial in enumerate(module.search.state.trials)
    ]
    assert all(each.kept == (each.loss < each.loss_before) and each.before != each.after for each in tried)
    assert load_graph(tmp_path / "best/graph.yaml").prompts == module.graph.prompts


def no_loss(trace: Trace) -> VerbalLoss:
    return VerbalLoss(value=0.0, text="")


def test_without_errors_nobody_is_blamed(world: Path, tmp_path: Path):
    fit(world, tmp_path, make_module(world, loss=f"{__name__}.no_loss"), steps=1)
    found = read_metrics(tmp_path)
    credits = [found[f"credit_{kind}_by_agent/{name}"][0] for kind in ("own", "walk") for name in ("first", "tool")]
    assert credits == [0, 0, 0, 0]
    assert read_blame(tmp_path) is None
    assert not read_prompts(tmp_path)


@pytest.mark.slow
def test_failed_episodes_are_counted_and_left_out(tmp_path: Path):
    make_world(tmp_path, episodes=8, bad=2)
    module = make_module(tmp_path, soft=SOFT, failures=FailureConfig(max_failed_share=0.5, window=8))
    fit(tmp_path, tmp_path / "run", module, steps=4)
    assert (module.failures.seen, module.failures.failed) == (16, 4)
    lines = [json.loads(line) for line in (tmp_path / "run/failures.jsonl").read_text().splitlines()]
    assert {line["task"] for line in lines} == {"train-0", "train-1"}
    assert "raised ValueError (malformed call)" in lines[0]["reason"]


def test_too_many_failures_end_the_training(tmp_path: Path):
    make_world(tmp_path, episodes=16, bad=16)
    module = make_module(tmp_path, soft=SOFT, failures=FailureConfig(max_failed_share=0.5, window=32))
    with pytest.raises(TrainingError, match=r"8 of the last 8 episodes failed, more than .* 0.5 .*malformed call"):
        fit(tmp_path, tmp_path / "run", module, steps=4)
    assert list_checkpoints(tmp_path / "run" / FOLDER)[-1].name == name_of(1)


@pytest.mark.slow
def test_a_server_that_fails_in_mid_epoch(world: Path, tmp_path: Path):
    graph = json.loads((world / "graph.yaml").read_text())
    graph["agents"] = [{**agent, "estimator": "pass_through"} for agent in graph["agents"]]
    with serving(*["well"] * 8, 500) as server:
        models = {"m": {"url": server.url, "model": "x", "retries": 0, "parallel": 1}}
        module = make_module(world, graph=graph, models=models, search=search_config(world, every_n_steps=3))
        trainer = fit(world, tmp_path, module, steps=3)
    assert trainer.global_step == 3
    assert (module.failures.seen, module.failures.failed) == (12, 4)
    lines = (tmp_path / "failures.jsonl").read_text().splitlines()
    assert all("failed 1 times, at last: state 500" in line for line in lines)


@pytest.mark.slow
def test_what_does_not_fit(world: Path, tmp_path: Path):
    fit(world, tmp_path, make_module(world), steps=1)
    graph = json.loads((world / "graph.yaml").read_text())
    graph["agents"][1]["name"] = "final"
    with pytest.raises(CheckpointError, match="the checkpoint's agents are first, last"):
        fit(world, tmp_path, make_module(world, graph=graph), steps=2)
    with pytest.raises(ConfigError, match=r"model\.search without held-out episodes"):
        fit(world, tmp_path / "other", make_module(world, search=search_config(world)), steps=1, validation=None)
    with pytest.raises(ConfigError, match="attribute_every_n_steps -1"):
        make_module(world, attribute_every_n_steps=-1)


@pytest.mark.slow
@pytest.mark.parametrize("bound", [{"max_calls": 30}, {"max_tokens": 700}, {"max_wall_seconds": 1e-3}])
def test_a_met_bound_ends_the_training_with_its_prompts(world: Path, tmp_path: Path, bound: dict[str, Any]):
    module = make_module(world, soft=SOFT, search=search_config(world), budget=BudgetConfig(**bound))
    trainer = fit(world, tmp_path, module, steps=20)
    assert 0 < trainer.global_step < 5
    assert list_checkpoints(tmp_path / FOLDER)[-1].name == name_of(trainer.global_step)
    assert (tmp_path / "best/graph.yaml").exists()
    assert (tmp_path / "best/soft_prompts.safetensors").exists()
    # Started again, it has nothing left to spend.
    again = make_module(world, soft=SOFT, search=search_config(world), budget=BudgetConfig(**bound))
    assert fit(world, tmp_path, again, steps=20).global_step == trainer.global_step
