"""One recipe under every strategy: the same curve, the same averages, the same pictures, and real shards."""

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from framework.core.errors import ConfigError
from framework.data.images.transforms import ImageConfig
from framework.data.module import ShardDataModule
from framework.pra.callbacks import SampleGridConfig
from framework.pra.export import load_exported
from framework.pra.network.model import PRA
from framework.pra.sampling import SamplerConfig
from framework.testing.images import make_image_shards
from framework.testing.models import quiet_trainer, tiny_config, tiny_module
from framework.testing.processes.distributed import run_distributed
from framework.testing.processes.forked import run_forked
from framework.training.optimizer import OptimizerConfig
from framework.training.strategies.backend import backend_of_tensor, local_part
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import DeepSpeedOptions, FSDP2Options, StrategyConfig
from tests.pra.test_export import write

GLOBAL_BATCH, STEPS = 8, 12
CONFIG = tiny_config(num_classes=2, depth=2)
GRID = SampleGridConfig(every_n_steps=STEPS, rows=1, sampler=SamplerConfig(steps=2))
RECOMPUTED = {"activation_checkpointing": 1}

Cases = dict[str, dict[str, Any]]


def installed(cases: Cases) -> Cases:
    """Those that can run here: DeepSpeed is an extra."""
    there = importlib.util.find_spec("deepspeed") is not None
    return {name: options for name, options in cases.items() if there or options["name"] != "deepspeed"}


LONG = installed(
    {
        "ddp": {"name": "ddp"},
        "fsdp2": {"name": "fsdp2"},
        "zero1": {"name": "deepspeed", "deepspeed": {"stage": 1}},
        "zero2": {"name": "deepspeed", "deepspeed": {"stage": 2}},
        "zero3": {"name": "deepspeed", "deepspeed": {"stage": 3}},
    }
)
"""Trained for `STEPS` steps."""
SHORT_STEPS = 4
SHORT = installed(
    {
        "fsdp2, recomputed": {"name": "fsdp2", **RECOMPUTED},
        "fsdp2, kept after forward": {"name": "fsdp2", "fsdp2": {"reshard_after_forward": False}},
        "fsdp2, offloaded": {"name": "fsdp2", "fsdp2": {"cpu_offload": True}},
        "zero3, recomputed": {"name": "deepspeed", "deepspeed": {"stage": 3}, **RECOMPUTED},
        "zero3, offloaded": {
            "name": "deepspeed",
            "deepspeed": {"stage": 3, "offload_optimizer": True, "offload_parameters": True},
        },
        "zero3, small weights whole": {"name": "deepspeed", "deepspeed": {"stage": 3, "persistence_threshold": 100}},
    }
)
ACCUMULATED = installed(
    {
        "ddp, accumulated": {"name": "ddp"},
        "fsdp2, accumulated whole": {"name": "fsdp2"},
        "fsdp2, accumulated sharded": {"name": "fsdp2", "fsdp2": {"accumulation": "sharded"}},
        "zero2, accumulated": {"name": "deepspeed", "deepspeed": {"stage": 2}},
        "zero3, accumulated": {"name": "deepspeed", "deepspeed": {"stage": 3}},
    }
)
"""In two micro-batches, and without clipping, which would hide a factor on the gradients."""

HALF = installed(
    {
        "ddp, bf16": {"name": "ddp"},
        "fsdp2, bf16": {"name": "fsdp2"},
        "fsdp2, bf16, gathered in bf16": {
            "name": "fsdp2",
            "fsdp2": {"param_dtype": "bfloat16", "reduce_dtype": "bfloat16"},
        },
        "zero2, bf16": {"name": "deepspeed", "deepspeed": {"stage": 2}},
        "zero3, bf16": {"name": "deepspeed", "deepspeed": {"stage": 3}},
        "zero3, bf16, gathered in bf16": {"name": "deepspeed", "deepspeed": {"stage": 3, "comm_dtype": "bfloat16"}},
    }
)
PARTS = {f"{case}, the head alone": options for case, options in LONG.items()}
"""From exported weights, of which the head alone learns on."""
REPLICATED: dict[str, dict[str, Any]] = {
    "replicate x shard": {"name": "fsdp2", "fsdp2": {"replicate": 2}},
    "replicate x shard, accumulated sharded": {"name": "fsdp2", "fsdp2": {"replicate": 2, "accumulation": "sharded"}},
}
"""On four processes."""
COMPILED = installed(
    {
        "ddp": {"name": "ddp", "compile": True},
        "fsdp2": {"name": "fsdp2", "compile": True, "activation_checkpointing": 2},
        "zero2": {"name": "deepspeed", "deepspeed": {"stage": 2}, "compile": True},
        "ddp, whole": {"name": "ddp", "compile": "whole"},
    }
)
GRAPHS = {"ddp": 4, "fsdp2": 5, "zero2": 4, "ddp, whole": 1}
"""Blocks of the transformer and of the encoder, of the head and of the decoder, none of them twice, but the two
of the transformer where one of them is recomputed; or the whole loss."""


def config_of(options: dict[str, Any]) -> StrategyConfig:
    options = dict(options)
    fsdp2, deepspeed = FSDP2Options(**options.pop("fsdp2", {})), DeepSpeedOptions(**options.pop("deepspeed", {}))
    return StrategyConfig(**options, fsdp2=fsdp2, deepspeed=deepspeed)


class Reductions(TorchDispatchMode):
    """Counts operations that sum tensors over processes."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += any(name in str(func) for name in ("reduce_scatter", "allreduce"))
        return func(*args, **(kwargs or {}))


class Notes(Callback):
    """The loss of every micro-batch and, where they are accumulated, the communication of its gradients."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.reductions: list[int] = []
        self._counter: Any = None

    def on_before_backward(self, trainer: Trainer, *_: Any) -> None:
        self._counter = Reductions() if trainer.accumulate_grad_batches > 1 else None
        if self._counter is not None:
            self._counter.__enter__()

    def on_after_backward(self, *_: Any) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.reductions.append(self._counter.count)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)


def whole(module: LightningModule) -> dict[str, np.ndarray]:
    """All weights of a module, whole."""
    gathered = {name: backend_of_tensor(p).gather(p) for name, p in module.named_parameters()}
    return {name: tensor.detach().cpu().numpy() for name, tensor in gathered.items()}


def fit(
    folder: Path, shards: str, strategy: Any, *, accumulate: int = 1, weights: Path | None = None, **options: Any
) -> dict[str, Any]:
    """Trains a tiny PRA model; the global batch is the same whatever the processes and the accumulation.

    Args:
        folder: of the run.
        shards: its data.
        strategy: of the trainer.
        accumulate: micro-batches of a step.
        weights: exported ones to start from; the head alone is then trained.
        options: of the trainer.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    data = ShardDataModule(
        train=shards,
        validation=shards,
        validation_samples=8,
        images=ImageConfig(size=4, channels=1, crop="random", flip=True),
        batch_size=GLOBAL_BATCH // world // accumulate,
    )
    notes = Notes()
    part = {} if weights is None else {"initial_weights": str(weights), "trainable": ["head"]}
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=2)
    module = tiny_module(CONFIG, grid=GRID, optimizer=optimizer, **part)
    settings = {"max_steps": STEPS, "gradient_clip_val": 0.5, "val_check_interval": 8 * accumulate, **options}
    trainer = quiet_trainer(
        folder, strategy=strategy, devices=world, callbacks=[notes], accumulate_grad_batches=accumulate, **settings
    )
    trainer.fit(module, data)
    tensors = whole(module)
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "weights.npz", **tensors)
    return {
        "losses": np.reshape(notes.losses, (-1, accumulate)).mean(1).tolist(),
        "reductions": notes.reductions,
        "validation": float(trainer.callback_metrics.get("validation/total", torch.nan)),
        "local": sum(local_part(p).numel() for p in module.model.parameters()),
        "local_ema": sum(local_part(p).numel() for p in module.ema.parameters()),
        "total": sum(tensor.size for name, tensor in tensors.items() if name.startswith("model.")),
    }


def strategy_of(options: dict[str, Any]) -> Any:
    config = config_of(options)
    if config.name != "deepspeed":
        return make_strategy(config, accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]))
    from framework.testing.processes.deepspeed_cpu import CPUDeepSpeedStrategy

    given = options["deepspeed"].get("persistence_threshold", 0)
    return CPUDeepSpeedStrategy(config, persistence_threshold=given)


def quiet() -> None:
    """DeepSpeed and Lightning warn about their own affairs in these processes."""
    warnings.filterwarnings("ignore")


class Whole(LightningModule):
    """Has no part that is sharded."""

    def configure_model(self) -> None:
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any) -> None:
        pass

    def configure_optimizers(self) -> None:
        pass


def refusal(folder: str) -> str:
    trainer = quiet_trainer(Path(folder), strategy=strategy_of({"name": "fsdp2"}), devices=2, max_steps=1)
    with pytest.raises(ConfigError) as refused:
        trainer.fit(Whole(), train_dataloaders=[0])
    return str(refused.value)


def train(folder: str, shards: str, weights: str) -> dict[str, Any]:
    """All cases on two processes: they start once, which is what takes the time."""
    quiet()
    results: dict[str, Any] = {"refusal": refusal(folder)}
    for case, options in LONG.items():
        results[case] = fit(Path(folder) / case, shards, strategy_of(options))
    for case, options in SHORT.items():
        results[case] = fit(Path(folder) / case, shards, strategy_of(options), max_steps=SHORT_STEPS)
    for case, options in ACCUMULATED.items():
        results[case] = fit(
            Path(folder) / case,
            shards,
            strategy_of(options),
            accumulate=2,
            max_steps=SHORT_STEPS,
            gradient_clip_val=None,
        )
    for case, options in HALF.items():
        results[case] = fit(
            Path(folder) / case, shards, strategy_of(options), max_steps=SHORT_STEPS, precision="bf16-mixed"
        )
    for case, options in PARTS.items():
        results[case] = fit(
            Path(folder) / case, shards, strategy_of(options), weights=Path(weights), max_steps=SHORT_STEPS
        )
    return results


def train_replicated(folder: str, shards: str) -> dict[str, Any]:
    quiet()
    return {
        case: fit(Path(folder) / case, shards, strategy_of(options), accumulate=2, max_steps=SHORT_STEPS)
        for case, options in REPLICATED.items()
    }


def train_compiled(folder: str, shards: str) -> dict[str, Any]:
    """With as many graphs as there are, and how many are in pieces."""
    quiet()
    results = {}
    # Traced and differentiated as always, but not made into machine code, which would take minutes.
    with torch.compiler.set_stance("default", force_backend="aot_eager"):
        for case, options in COMPILED.items():
            torch.compiler.reset()
            counters.clear()
            run = fit(Path(folder) / case, shards, strategy_of(options), max_steps=SHORT_STEPS)
            graphs, breaks = counters["stats"]["unique_graphs"], dict(counters["graph_break"])
            results[case] = {**run, "graphs": graphs, "breaks": breaks}
    return results


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """70 images: eight global batches make an epoch."""
    path = tmp_path_factory.mktemp("strategies")
    make_image_shards(path, classes=("a", "b"), per_class=35, size=(6, 5), samples_per_shard=7)
    return str(path / "shards")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write(folder, PRA(CONFIG, seed=1))
    return folder


Runs = tuple[Path, dict[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def runs(shards: str, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("two")
    return folder, run_forked(train, 2, folder=str(folder), shards=shards, weights=str(weights), timeout=600).results


@pytest.fixture(scope="module")
def single(
    shards: str, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """One process, with accumulated micro-batches of the same size as two processes have."""
    folder = tmp_path_factory.mktemp("one")

    def alone(name: str, **options: Any) -> dict[str, Any]:
        strategy = make_strategy(StrategyConfig(), accelerator="cpu", devices=1)
        return fit(folder / name, shards, strategy, accumulate=2, **options)

    return folder, {
        "long": alone("long"),
        "short": alone("short", max_steps=SHORT_STEPS),
        "accumulated": alone("accumulated", max_steps=SHORT_STEPS, gradient_clip_val=None),
        "part": alone("part", weights=weights, max_steps=SHORT_STEPS),
    }


def pixels(run_dir: Path) -> np.ndarray:
    with Image.open(run_dir / "samples" / f"step={STEPS:08d}.png") as image:
        return np.asarray(image).astype(int)


def check_curve(results: dict[int, dict[str, Any]], case: str, expected: dict[str, Any]) -> None:
    losses = np.mean([results[rank][case]["losses"] for rank in sorted(results)], axis=0)
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-5)


def check_weights(folder: Path, expected: Path, atol: float = 1e-6) -> None:
    """Model and average: every step follows from every one before it."""
    with np.load(folder / "weights.npz") as ours, np.load(expected / "weights.npz") as theirs:
        assert sorted(ours) == sorted(theirs)
        assert any(name.startswith("ema.") for name in ours)
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=atol, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG)
def test_the_same_curve_averages_validation_and_pictures(runs, single, case: str):
    folder, results = runs
    alone_dir, alone = single
    check_curve(results, case, alone["long"])
    check_weights(folder / case, alone_dir / "long", atol=1e-5)
    assert results[0][case]["validation"] == pytest.approx(alone["long"]["validation"], rel=1e-5)
    # The weights differ in their last bits, which may turn a rounding to a gray level.
    assert np.abs(pixels(folder / case) - pixels(alone_dir / "long")).max() <= 1


@pytest.mark.parametrize("case", [*SHORT, *ACCUMULATED])
def test_no_option_changes_the_curve(runs, single, case: str):
    folder, results = runs
    alone_dir, alone = single
    name = "short" if case in SHORT else "accumulated"
    check_curve(results, case, alone[name])
    check_weights(folder / case, alone_dir / name, atol=1e-5)


@pytest.mark.parametrize("case", PARTS)
def test_a_part_learns_alone(runs, single, weights: Path, case: str):
    folder, results = runs
    check_curve(results, case, single[1]["part"])
    check_weights(folder / case, single[0] / "part", atol=1e-5)
    start = load_exported(weights).state_dict()
    with np.load(folder / case / "weights.npz") as ours:
        moved = {name.split(".")[0] for name in start if not np.array_equal(ours[f"model.{name}"], start[name].numpy())}
    assert moved == {"head"}


@pytest.mark.parametrize("case", LONG)
def test_the_shards_are_real(runs, case: str):
    _, results = runs
    for rank in (0, 1):
        measured = results[rank][case]
        share = 1.0 if case in ("ddp", "zero1", "zero2") else 0.5
        assert measured["local"] == pytest.approx(share * measured["total"], rel=0.01)
        assert measured["local_ema"] == measured["local"]


def test_a_model_that_nothing_shards_is_refused_under_fsdp2(runs):
    expected = "strategy.name fsdp2, but layer.weight of Whole is not sharded: use ddp for this model"
    assert [results["refusal"] for results in runs[1].values()] == [expected] * 2


def test_accumulated_gradients_are_communicated_once(runs):
    _, results = runs
    once, every = (
        results[0][case]["reductions"] for case in ("fsdp2, accumulated whole", "fsdp2, accumulated sharded")
    )
    assert set(once[0::2]) == {0}
    assert len(set(every)) == 1
    # A module that is called twice in a step sums what the first micro-batch has left by itself.
    assert 0 < once[1] < 2 * every[0]


@pytest.mark.parametrize("case", HALF)
def test_half_precision_keeps_whole_weights_and_averages(runs, single, case: str):
    folder, results = runs
    losses = np.mean([results[rank][case]["losses"] for rank in (0, 1)], axis=0)
    np.testing.assert_allclose(losses, single[1]["short"]["losses"], rtol=0.03)
    with np.load(folder / case / "weights.npz") as ours, np.load(single[0] / "short" / "weights.npz") as theirs:
        for name in ours:
            assert ours[name].dtype == np.float32
            # Of the size of a few steps of the learning rate.
            np.testing.assert_allclose(ours[name], theirs[name], atol=5e-3, err_msg=name)
        # The average moves by less than the lower precision could tell.
        name = "transformer.project_in.weight"
        assert not np.array_equal(ours[f"ema.{name}"], ours[f"model.{name}"])


@pytest.mark.slow
def test_replicas_of_shards(single, shards: str, tmp_path: Path):
    run = run_forked(train_replicated, 4, folder=str(tmp_path), shards=shards)
    alone_dir, alone = single
    for case in REPLICATED:
        check_curve(run.results, case, alone["short"])
        check_weights(tmp_path / case, alone_dir / "short", atol=1e-5)
        for measured in (run.results[rank][case] for rank in range(4)):
            assert measured["local"] == pytest.approx(0.5 * measured["total"], rel=0.01)
    whole, sharded = (run.results[0][case]["reductions"] for case in REPLICATED)
    assert whole[0] == 0
    # Over the shards for each micro-batch, over the replicas for the last one only.
    assert 0 < sharded[0] < sharded[1]


@pytest.mark.slow
def test_compiled_blocks_take_the_same_steps(single, shards: str, tmp_path: Path):
    run = run_forked(train_compiled, 2, folder=str(tmp_path), shards=shards, timeout=600)
    for case in COMPILED:
        losses = np.mean([run.results[rank][case]["losses"] for rank in (0, 1)], axis=0)
        np.testing.assert_allclose(losses, single[1]["short"]["losses"], rtol=1e-4)
        assert run.results[0][case]["breaks"] == {}, case
        assert run.results[0][case]["graphs"] == GRAPHS[case], case


def train_whole(folder: str, shards: str) -> dict[str, Any]:
    """With validation and pictures of the average, whose last batch is smaller, and recomputed blocks."""
    quiet()
    with torch.compiler.set_stance("default", force_backend="aot_eager"):
        counters.clear()
        strategy = make_strategy(
            StrategyConfig(compile="whole", activation_checkpointing=2), accelerator="cpu", devices=1
        )
        run = fit(Path(folder) / "whole", shards, strategy)
    return {**run, "graphs": counters["stats"]["unique_graphs"], "breaks": dict(counters["graph_break"])}


@pytest.mark.slow
def test_a_loss_that_is_one_graph_is_compiled_once_in_a_run(single, shards: str, tmp_path: Path):
    run = run_forked(train_whole, 1, folder=str(tmp_path), shards=shards, timeout=600).results[0]
    expected = single[1]["long"]
    np.testing.assert_allclose(run["losses"], expected["losses"], rtol=1e-4)
    assert run["validation"] == pytest.approx(expected["validation"], rel=1e-4)
    assert (run["graphs"], run["breaks"]) == (1, {})


ON_A_GPU: dict[str, dict[str, Any]] = {
    "alone, compiled": {"name": "ddp", "compile": True},
    "fsdp2, compiled": {"name": "fsdp2", "compile": True, **RECOMPUTED},
    "fsdp2, offloaded": {"name": "fsdp2", "fsdp2": {"cpu_offload": True}},
    "zero2": {"name": "deepspeed", "deepspeed": {"stage": 2}},
    "zero3": {"name": "deepspeed", "deepspeed": {"stage": 3}},
}


def train_on_a_gpu(folder: str, shards: str) -> dict[str, Any]:
    quiet()
    results = {}
    for case, options in ON_A_GPU.items():
        strategy = make_strategy(config_of(options), accelerator="gpu", devices=1)
        options = {"accelerator": "gpu", "precision": "bf16-mixed", "val_check_interval": 8, "inference_mode": False}
        results[case] = fit(Path(folder) / case, shards, strategy, **options)
    return results


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_strategy_trains_validates_and_samples_on_a_gpu(shards: str, tmp_path: Path):
    run = run_distributed(train_on_a_gpu, 1, arguments={"folder": str(tmp_path), "shards": shards})
    results = run.results[0]
    first = results["alone, compiled"]
    for case in ON_A_GPU:
        # All draw the same noise; products in bfloat16 round differently.
        np.testing.assert_allclose(results[case]["losses"], first["losses"], rtol=0.03, err_msg=case)
        assert results[case]["validation"] == pytest.approx(first["validation"], rel=0.03)
        assert pixels(tmp_path / case).any()
