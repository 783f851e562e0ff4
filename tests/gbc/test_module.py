"""Training of agents: soft prompts and searched prompts, what fails, budgets, resume, 1 against 2 processes."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import Strategy

from framework.cli import main
from framework.data.convert_jsonl import write_jsonl_shards
from framework.data.module import ShardDataModule
from framework.errors import CheckpointError, ConfigError, TrainingError
from framework.gbc.adapters import AdapterConfig
from framework.gbc.budget import BudgetConfig
from framework.gbc.graph import load_graph
from framework.gbc.losses import VerbalLoss
from framework.gbc.models import LocalModel, LocalModelConfig
from framework.gbc.module import GBCModule
from framework.gbc.run import RunOptions
from framework.gbc.steering import read_steering
from framework.gbc.trace import Trace
from framework.gbc.training.failures import FailureConfig
from framework.gbc.training.parameters import SoftConfig
from framework.gbc.training.search import SearchConfig
from framework.testing.agents import WORDS, make_world
from framework.testing.distributed import run_distributed
from framework.testing.language_models import save_tiny_model
from framework.testing.model_server import serving
from framework.testing.models import quiet_trainer
from framework.testing.wandb_files import read_wandb_files
from framework.tracking.curves import read_metrics
from framework.tracking.episodes import FOLDER as BLAME
from framework.tracking.episodes import GRAPH, read_blame
from framework.tracking.prompt_history import TriedPrompt, read_prompts
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.finite import FiniteGuard
from framework.training.callbacks.random_state import RandomState
from framework.training.callbacks.throughput import Throughput
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, name_of
from framework.training.checkpoint.read import read_state, read_tensors
from framework.training.optimizer import OptimizerConfig
from framework.training.strategies import DeepSpeedOptions, StrategyConfig, make_strategy

RECIPES = Path(__file__).parents[2] / "recipes/gbc"
MICRO = Path(__file__).parents[2] / "framework/gbc/environments/microworld/model"
OPTIMIZER = OptimizerConfig(learning_rate=0.05, weight_decay=0.0, warmup_steps=0)
SOFT = SoftConfig(model="m", num_tokens=2, gates=True)
ALL = replace(SOFT, adapters=AdapterConfig(rank=2, targets=("q_proj",)))
ONE_LAYER = SoftConfig(
    model="m", num_tokens=0, adapters=AdapterConfig(rank=2, targets=("layers.1.self_attn.q_proj",)), agents=("last",)
)


def make_module(world: Path, **options: Any) -> GBCModule:
    settings: dict[str, Any] = {
        "graph": str(world / "graph.yaml"),
        "models": {"m": {"path": str(world / "model")}},
        "loss": "framework.testing.agents:length_loss",
        "run": RunOptions(on_empty="keep"),
        **options,
    }
    return GBCModule(**settings)


def strategy_of(name: str, devices: int) -> Strategy:
    if name != "zero3":
        return make_strategy(StrategyConfig(name=name), accelerator="cpu", devices=devices)  # type: ignore[arg-type]
    from framework.testing.deepspeed_cpu import CPUDeepSpeedStrategy

    warnings.filterwarnings("ignore")
    return CPUDeepSpeedStrategy(StrategyConfig(name="deepspeed", deepspeed=DeepSpeedOptions(stage=3)))


def fit(world: Path, run_dir: Path, module: GBCModule, *, steps: int, devices: int = 1, **options: Any) -> Trainer:
    seed_everything(0, verbose=False)
    strategy = strategy_of(options.pop("strategy", "ddp"), devices)
    strategy.start_anew = True  # type: ignore[attr-defined]
    more = options.pop("callbacks", [])
    batch_size = options.pop("batch_size", 4)
    validation = options.pop("validation", str(world / "held_out"))
    callbacks = [Throughput(), FiniteGuard(), RandomState(), *more, Checkpoints(every_n_steps=1, keep_last=100)]
    trainer = quiet_trainer(
        run_dir,
        max_steps=steps,
        strategy=strategy,
        devices=devices,
        logger=CSVLogger(run_dir, name="metrics", flush_logs_every_n_steps=1),
        enable_checkpointing=True,
        log_every_n_steps=1,
        gradient_clip_val=1.0,
        val_check_interval=options.pop("val_check_interval", 100),
        inference_mode=False,
        callbacks=callbacks,
        **options,
    )
    data = ShardDataModule(
        train=str(world / "train"),
        validation=validation,
        kind="episodes",
        batch_size=batch_size,
    )
    trainer.fit(module, datamodule=data, ckpt_path=run_dir, weights_only=True)
    return trainer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


def search_config(world: Path, **options: Any) -> SearchConfig:
    return SearchConfig(candidates=str(world / "candidates.yaml"), num_held_out=5, **options)


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
    soft, _ = read_steering(run_dir / "best/soft_prompts.safetensors", device="cpu", hidden_size=32)
    return {name: value.detach() for name, value in soft.items()}


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
    (local,) = module.system.local_models
    assert {name.replace(".base_layer", "") for name, _ in local.model.named_parameters()} == before.keys()
    for name, value in local.model.named_parameters():
        assert torch.equal(value, before[name.replace(".base_layer", "")])


def module_weights(world: Path) -> dict[str, torch.Tensor]:
    return dict(LocalModel.load(LocalModelConfig(path=str(world / "model"))).model.named_parameters())


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
    assert module._best_loss == losses[best]
    assert json.loads((tmp_path / "best/validation.json").read_text()) == {"step": best + 1, "loss": losses[best]}


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


def fit_recipe(name: str, settings: dict[str, Any]) -> None:
    words = {"trainer.enable_progress_bar": False, "trainer.accelerator": "cpu", "run.wandb": "disabled", **settings}
    options = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in words.items()]
    main(["fit", "--config", str(RECIPES / name), *options])


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
    run_distributed(fit_multiwoz, 2, arguments={"settings": settings})
    found = read_metrics(tmp_path / "run")
    assert found["failures/count"][1] == 1
    assert found["soft/trained_share"][0] > 0.8
    assert min(found["loss/target_nats_per_token"][0], found["search/held_out_loss"][1]) > 0
    assert (tmp_path / "run/best/soft_prompts.safetensors").exists()
    written = {path.parent.name for path in tmp_path.glob("run/best/adapters/*/adapter_model.safetensors")}
    assert written == {agent["name"] for agent in graph["agents"]}
    assert json.loads((tmp_path / "run/best/validation.json").read_text())["step"] == 2


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


def test_a_validation_after_the_last_checkpoint_is_not_forgotten(world: Path, tmp_path: Path):
    stopped, again = (make_module(world, soft=ALL, optimizer=OPTIMIZER) for _ in range(2))
    with pytest.raises(Killed):
        fit(world, tmp_path, stopped, steps=4, val_check_interval=2, callbacks=[KillAt(2)])
    assert stopped._best_loss is not None
    before = {path: path.read_bytes() for path in (tmp_path / "best").rglob("*") if path.is_file()}
    assert {path.name for path in before} > {"validation.json", "soft_prompts.safetensors"}
    fit(world, tmp_path, again, steps=3, val_check_interval=2)
    assert again._best_loss == stopped._best_loss
    assert all(path.read_bytes() == content for path, content in before.items())


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
            play = pl_module.work.play

            def noted(graph: Any, tasks: Any, **options: Any) -> Any:
                played = play(graph, tasks, **options)
                traces = [each.trace for each in played if each.trace is not None]
                generated.extend([trace.id, [step.output for step in trace.steps]] for trace in traces)
                return played

            pl_module.work.play = noted

    fit(
        folder, Path(run_dir), module, steps=steps, devices=devices, batch_size=batch_size, strategy=strategy,
        callbacks=[Watch()],
    )  # fmt: skip
    assert module.search is not None
    with torch.no_grad():
        steering = module.steering.named(module.steering())
    state = module.search.state_dict()
    return {
        "trials": state["state"]["trials"],
        "prompts": state["state"]["prompts"],
        "credits": [credit for each in state["blamed"] for c in each["credits"] for credit in (c["own"], c["through"])],
        "soft": [number for value in steering.soft.values() for number in value.flatten().tolist()],
        "gates": [gate.item() for gate in steering.gates.values()],
        "adapters": [number for value in steering.adapters.values() for number in value.tolist()],
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


@pytest.mark.parametrize(
    ("strategy", "soft"), [("ddp", "all"), ("fsdp2", "all"), ("zero3", "all"), ("fsdp2", "one layer's adapters")]
)
def test_two_processes_train_as_one(tmp_path: Path, strategy: str, soft: str):
    make_world(tmp_path, bad=5)
    common = {"world": str(tmp_path), "strategy": strategy, "steps": {"ddp": 20}.get(strategy, 7), "soft": soft}
    alone = {**common, "run_dir": str(tmp_path / "one"), "devices": 1, "batch_size": 4, "strategy": "ddp"}
    one = train(**alone)
    common |= {"run_dir": str(tmp_path / "two"), "devices": 2, "batch_size": 2}
    two = run_distributed(train, 2, arguments=common).results
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
        return [replace(each, loss=0, loss_before=0) for each in read_prompts(run)]

    assert without_losses(ours) == without_losses(theirs)
    assert without_losses(ours)
