"""The recipes for training agents as users start them.

The micro world, all tracked, MultiWOZ on two processes, and its micro language model with the agents that share it.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from framework.cli.main import main
from framework.data.convert.jsonl import write_jsonl_shards
from framework.gbc.graph.spec import load_graph
from framework.gbc.tracking.episode_records import read_blame
from framework.gbc.tracking.prompt_history import read_prompts
from framework.testing.agents import WORDS
from framework.testing.language_models import save_tiny_model
from framework.testing.processes.forked import run_forked
from framework.testing.servers.wandb_files import read_wandb_files
from framework.tracking.metric_files import read_metrics
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, name_of
from tests.gbc.environments.multiwoz.state_tracking.test_example_shards import write_source

RECIPES = Path(__file__).parents[2] / "recipes/gbc"
MICRO = Path(__file__).parents[2] / "framework/gbc/environments/microworld/model"


def fit_recipe(name: str, settings: dict[str, Any]) -> None:
    words = {"trainer.enable_progress_bar": False, "trainer.accelerator": "cpu", "run.wandb": "disabled", **settings}
    options = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in words.items()]
    main(["fit", "--config", str(RECIPES / name), *options])


@pytest.mark.slow
def test_the_recipe_of_the_micro_world(tmp_path: Path):
    data = tmp_path / "data"
    main(["agents", "microworld", str(data), "--num_tasks", "4"])
    for part in ("tasks", "held_out"):
        write_jsonl_shards(data / f"{part}.jsonl", data / f"{part}-shards")
    settings = {
        "run.dir": str(tmp_path / "run"),
        "data.train": str(data / "tasks-shards"),
        "data.validation": str(data / "held_out-shards"),
        "data.batch_size": 1,
        "model.init_args.graph": str(data / "faulty.yaml"),
        "model.init_args.models": {"micro": {"path": str(MICRO)}},
        "model.init_args.search.candidates": str(data / "candidates.yaml"),
        "model.init_args.search.num_held_out": 2,
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "run.wandb": "offline",
    }
    fit_recipe("microworld_train.yaml", settings)
    found = read_metrics(tmp_path / "run")
    assert {"search/held_out_loss", "validation/success", "credit_walk_by_agent/manager"} <= found.keys()
    assert load_graph(tmp_path / "run/best/graph.yaml").prompts.keys() == load_graph(data / "graph.yaml").prompts.keys()
    # The same command goes on.
    fit_recipe("microworld_train.yaml", {**settings, "trainer.max_steps": 3})
    assert list_checkpoints(tmp_path / "run" / FOLDER)[-1].name == name_of(3)
    check_tracking(tmp_path / "run")


def check_tracking(run: Path) -> None:
    """Tried prompts, the graph and the worst episodes are in the run's folder, in W&B and in the report."""
    blame, tried = read_blame(run), read_prompts(run)
    assert blame is not None
    assert tried
    assert "bravo" in blame.episodes[0].own
    first, second = read_wandb_files(run)
    logged = {key for row in (*first.history, *second.history) for key in row}
    assert {"agents/prompts", "agents/graph", "agents/worst_episodes"} <= {key.partition(".")[0] for key in logged}
    *_, newest = sorted(run.glob("wandb/*/files/media/html/agents/worst_episodes_*.html"))
    assert blame.episodes[0].id in newest.read_text()
    *_, table = sorted(run.glob("wandb/*/files/media/table/agents/prompts_*.json"))
    rows = json.loads(table.read_text())["data"]
    assert [row[:3] for row in rows] == [[each.step, each.agent, each.loss] for each in tried]
    assert all("[-" in row[-1] and "{+" in row[-1] for row in rows)
    main(["report", str(run)])
    page = (run / "report.html").read_text()
    for words in ("Worst episodes", "data:image/svg+xml;base64,", f"{len(tried)} trials", blame.episodes[0].id):
        assert words in page


def fit_multiwoz(settings: dict[str, Any]) -> None:
    fit_recipe("multiwoz_train.yaml", settings)


@pytest.mark.slow
def test_the_recipe_of_multiwoz_on_two_processes(tmp_path: Path):
    turn = {"system": "Fine.", "requested": [], "booked": [], "template": None}
    states = [{"hotel-area": "north"}, {"hotel-area": "north", "train-day": "friday"}]
    turns = [{"user": f"{word}, please", "state": state, **turn} for word, state in zip(WORDS, states, strict=False)]
    dialogues = [
        {"id": f"D{number}.json", "split": "train", "domains": ["hotel"], "goal": {}, "turns": turns}
        for number in range(8)
    ]
    # One of them is truncated.
    dialogues[5] = {**dialogues[5], "turns": []}
    (tmp_path / "dialogues.jsonl").write_text("".join(json.dumps(each) + "\n" for each in dialogues))
    write_jsonl_shards(tmp_path / "dialogues.jsonl", tmp_path / "shards")
    save_tiny_model(tmp_path / "model", num_hidden_layers=1, max_position_embeddings=2048)
    graph = yaml.safe_load((RECIPES / "graphs/multiwoz.yaml").read_text())
    for agent in graph["agents"]:
        # A random model's manager names nobody, and it never ends.
        agent.pop("when", None)
        agent |= {"max_new_tokens": 2, "prompt": agent["prompt"][:40]}
    release = tmp_path / "release"
    release.mkdir()
    (release / "data.json").write_text("{}")
    (release / "taxi_db.json").write_text(json.dumps({"taxi_colors": ["red"], "taxi_types": ["skoda"]}))
    for domain in ("hotel", "restaurant", "attraction", "train"):
        (release / f"{domain}_db.json").write_text("[]")
    graph["tools"][0]["function"]["init_args"]["release"] = str(release)
    (tmp_path / "graph.yaml").write_text(yaml.safe_dump(graph))
    settings = {
        "run.dir": str(tmp_path / "run"),
        "data.train": str(tmp_path / "shards"),
        "data.validation": str(tmp_path / "shards"),
        "data.validation_samples": 2,
        "model.init_args.graph": str(tmp_path / "graph.yaml"),
        "model.init_args.models": {"main": {"path": str(tmp_path / "model")}},
        "model.init_args.search.every_n_steps": 2,
        "model.init_args.search.num_held_out": 2,
        "model.init_args.soft.adapters": {"rank": 2, "targets": ["v_proj"]},
        "trainer.devices": 2,
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
    }
    run_forked(fit_multiwoz, 2, settings=settings)
    found = read_metrics(tmp_path / "run")
    assert found["failures/count"][1] == 1
    assert found["soft/trained_share"][0] > 0.8
    assert min(found["loss/target_nats_per_token"][0], found["search/held_out_loss"][1]) > 0
    assert (tmp_path / "run/best/soft_prompts.safetensors").exists()
    written = {path.parent.name for path in tmp_path.glob("run/best/adapters/*/adapter_model.safetensors")}
    assert written == {agent["name"] for agent in graph["agents"]}
    assert json.loads((tmp_path / "run/best/validation.json").read_text())["step"] == 2


@pytest.mark.slow
def test_the_commands_of_the_micro_language_model_of_multiwoz(tmp_path: Path, capsys):
    data, run, graph = tmp_path / "data", tmp_path / "run", str(RECIPES / "graphs/multiwoz_state.yaml")
    examples = {"examples": 40, "practice": 12, "tuning": 2, "set_aside": 1}
    sizes = [word for name, size in examples.items() for word in (f"--num_{name}", str(size))]
    main(["shards", "multiwoz-examples", str(write_source(tmp_path)), str(data), *sizes])
    settings = {
        "run.dir": str(tmp_path / "lm"),
        "data.train": str(data / "train"),
        "data.validation": str(data / "validation"),
        "model.init_args.tokenizer": str(data / "tokenizer"),
        "model.init_args.architecture.num_layers": 1,
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "trainer.log_every_n_steps": 1,
    }
    fit_recipe("multiwoz_model.yaml", settings)
    main(["export", str(tmp_path / "lm"), str(tmp_path / "micro")])
    models = tmp_path / "models.yaml"
    models.write_text(f"micro: {{path: {tmp_path / 'micro'}}}\n")
    met = tmp_path / "met.jsonl"
    main(["agents", "track", graph, str(data / "set_aside"), "--models", str(models), "--out", str(met)])
    main(["shards", "jsonl", str(met), str(tmp_path / "met")])
    settings = {
        "run.dir": str(run),
        "data.train": str(data / "practice"),
        "data.validation": str(tmp_path / "met"),
        "data.batch_size": 2,
        "model.init_args.graph": graph,
        "model.init_args.models": {"micro": {"path": str(tmp_path / "micro")}},
        "trainer.max_steps": 3,
        "trainer.val_check_interval": 3,
    }
    fit_recipe("multiwoz_state_train.yaml", settings)
    losses = read_metrics(run)["loss/target_nats_per_token"]
    assert losses[2] < losses[0]
    models.write_text(f"micro: {{path: {tmp_path / 'micro'}, adapters: {run / 'best/adapters'}}}\n")
    capsys.readouterr()
    main(["agents", "track", graph, str(data / "set_aside"), "--models", str(models)])
    assert "joint_goal_accuracy/hotel" in capsys.readouterr().out
