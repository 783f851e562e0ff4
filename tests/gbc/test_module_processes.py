"""Two processes train agents as one does, with whole and with sharded language models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from framework.gbc.tracking.episode_records import FOLDER as BLAME
from framework.gbc.tracking.episode_records import GRAPH, read_blame
from framework.gbc.tracking.prompt_history import TriedPrompt, read_prompts
from framework.gbc.training.failure_limit import FailureConfig
from framework.testing.agent_training import ALL, ONE_LAYER, OPTIMIZER, fit, make_module, search_config
from framework.testing.agents import make_world
from framework.testing.processes.forked import run_forked
from framework.tracking.metric_files import read_metrics


def train(
    world: str, run_dir: str, devices: int, batch_size: int, strategy: str, steps: int, soft: str
) -> dict[str, Any]:
    """Trains on all processes; what came out, as each of them sees it."""
    folder = Path(world)
    module = make_module(
        folder,
        soft=ALL if soft == "all" else ONE_LAYER,
        optimizer=replace(OPTIMIZER, learning_rate=0.02),
        search=search_config(folder, every_n_steps=3),
        failures=FailureConfig(max_failed_share=1.0),
    )
    generated: list[Any] = []

    class Watch(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            run_episodes = pl_module.worker.run_episodes

            def noted(graph: Any, tasks: Any, **options: Any) -> Any:
                results = run_episodes(graph, tasks, **options)
                traces = [each.trace for each in results if each.trace is not None]
                generated.extend([trace.id, [step.output for step in trace.steps]] for trace in traces)
                return results

            pl_module.worker.run_episodes = noted

    fit(
        folder, Path(run_dir), module, steps=steps, devices=devices, batch_size=batch_size, strategy=strategy,
        callbacks=[Watch()],
    )  # fmt: skip
    assert module.search is not None
    with torch.no_grad():
        agent_parameters = module.steering.named(module.steering())
    state = module.search.state_dict()
    return {
        "trials": state["state"]["trials"],
        "prompts": state["state"]["prompts"],
        "credits": [credit for each in state["blamed"] for c in each["credits"] for credit in (c["own"], c["through"])],
        "soft": [number for value in agent_parameters.soft.values() for number in value.flatten().tolist()],
        "gates": [gate.item() for gate in agent_parameters.gates.values()],
        "adapters": [number for value in agent_parameters.adapters.values() for number in value.tolist()],
        "failed": module.failures.failed,
        "tokens": module.budget.total.tokens,
        "generated": sorted(generated),
        "sharded": module.system.is_sharded,
    }


def assert_same_training(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert [{**trial, "loss": 0} for trial in ours["trials"]] == [{**trial, "loss": 0} for trial in theirs["trials"]]
    assert [t["loss"] for t in ours["trials"]] == pytest.approx([t["loss"] for t in theirs["trials"]], abs=1e-5)
    assert ours["prompts"] == theirs["prompts"]
    assert len(theirs["credits"]) > 0
    for name in ("credits", "soft", "gates", "adapters"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
    assert ours["failed"] == theirs["failed"] > 0
    assert ours["tokens"] == theirs["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "soft"), [("ddp", "all"), ("fsdp2", "all"), ("zero3", "all"), ("fsdp2", "one layer's adapters")]
)
def test_two_processes_train_as_one(tmp_path: Path, strategy: str, soft: str):
    make_world(tmp_path, bad=5)
    common = {"world": str(tmp_path), "strategy": strategy, "steps": {"ddp": 20}.get(strategy, 7), "soft": soft}
    alone = {**common, "run_dir": str(tmp_path / "one"), "devices": 1, "batch_size": 4, "strategy": "ddp"}
    one = train(**alone)
    common |= {"run_dir": str(tmp_path / "two"), "devices": 2, "batch_size": 2}
    two = run_forked(train, 2, **common).results
    for rank in (0, 1):
        assert_same_training(two[rank], one)
        assert two[rank]["sharded"] == (strategy != "ddp")
    assert sorted(two[0]["generated"] + two[1]["generated"]) == one["generated"]
    ours, theirs = read_metrics(tmp_path / "two"), read_metrics(tmp_path / "one")
    for name in (
        "loss/verbal",
        "loss/target_nats_per_token",
        "success/train",
        "credit_own_by_agent/first",
        "budget/calls",
    ):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
    assert_same_tracking(tmp_path / "two", tmp_path / "one")


def assert_same_tracking(ours: Path, theirs: Path) -> None:
    assert (ours / BLAME / GRAPH).exists()
    some, others = read_blame(ours), read_blame(theirs)
    assert some is not None
    assert others is not None
    assert (some.step, some.errors) == (others.step, others.errors)
    assert [episode.id for episode in some.episodes] == [episode.id for episode in others.episodes]
    for one, other in zip(some.episodes, others.episodes, strict=True):
        assert one.own == pytest.approx(other.own, abs=1e-5)
        assert [text.text for text in one.texts] == [text.text for text in other.texts]

    def without_losses(run: Path) -> list[TriedPrompt]:
        return [replace(each, loss=0.0, loss_before=0.0) for each in read_prompts(run)]

    assert without_losses(ours) == without_losses(theirs)
    assert without_losses(ours)
