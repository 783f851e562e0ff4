"""Histograms count every value once, however the model is sharded."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.testing.processes.forked import run_forked
from framework.tracking.wandb_run import TrackedRun
from framework.training.callbacks.histograms import BINS, Histograms, count, part_names
from framework.training.optimizer import OptimizerConfig
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import DeepSpeedOptions, FSDP2Options, StrategyConfig


class Kept(TrackedRun):
    """Keeps histograms instead of sending them."""

    def __init__(self) -> None:
        super().__init__(Path(), identity="x", name="x", project="x", online=False, restart=lambda: 0)
        self.seen: list[tuple[int, dict[str, Any]]] = []

    def _begin(self) -> None:
        pass

    @rank_zero_only
    def log_histograms(self, histograms: Any, step: int) -> None:
        self.seen.append((step, histograms))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        pass


class Enough(Exception):
    """Ends a run that has shown what it should."""


class FirstWeights(Histograms):
    """The weights that training begins with; no step is taken."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.on_before_optimizer_step(trainer, pl_module, trainer.optimizers[0])
        raise Enough


def fit(folder: str, every: int = 2, name: str = "single", replicate: int = 1, steps: int = 4, **options: Any) -> Any:
    torch.manual_seed(0)
    if name == "deepspeed":
        from framework.testing.processes.deepspeed_cpu import CPUDeepSpeedStrategy

        strategy: Any = CPUDeepSpeedStrategy(StrategyConfig(name="deepspeed", deepspeed=DeepSpeedOptions(stage=3)))
    elif name == "single":
        strategy = make_strategy(StrategyConfig(), accelerator="cpu", devices=1)
    else:
        config = StrategyConfig(name=name, fsdp2=FSDP2Options(replicate=replicate))  # type: ignore[arg-type]
        strategy = make_strategy(config, accelerator="cpu", devices=options["devices"])
    kept = Kept()
    callback = FirstWeights(1) if name == "deepspeed" else Histograms(every)
    trainer = quiet_trainer(
        Path(folder),
        callbacks=[callback],
        max_steps=steps,
        log_every_n_steps=1,
        logger=kept,
        strategy=strategy,
        **options,
    )
    # The same on every rank: the mean of their gradients is each one's.
    batches = [tiny_batch(tiny_config(), 4, seed=seed) for seed in range(steps)]
    # No rate: the weights stay what they were.
    module = tiny_module(optimizer=OptimizerConfig(learning_rate=1e-12, warmup_steps=0))
    with suppress(Enough):
        trainer.fit(module, datamodule=Batches(batches))
    return kept.seen


def num_values(histogram: Any) -> int:
    return sum(histogram[0])


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return fit(str(tmp_path_factory.mktemp("single")))


def test_every_n_steps_of_every_part(single: list[Any]):
    assert [step for step, _ in single] == [1, 3]
    parts = {"class_embedding", "decoder", "encoder", "head", "transformer"}
    names = {name.partition("/")[2] for name in single[0][1]}
    assert {name.partition("/")[0] for name in single[0][1]} == {"weights", "gradients"}
    assert len(names & parts) >= 3, names
    trained = sum(p.numel() for p in built().parameters() if p.requires_grad)
    assert sum(num_values(h) for name, h in single[0][1].items() if name.startswith("weights/")) == trained


def built() -> torch.nn.Module:
    from framework.pra.network.model import PRA

    return PRA(tiny_config())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"name": "ddp"}, {"name": "fsdp2"}, {"name": "deepspeed"}])
def test_sharded_models_give_the_same(tmp_path: Path, single: list[Any], options: dict[str, Any]):
    if options["name"] == "deepspeed":
        pytest.importorskip("deepspeed")
    ended = run_forked(fit, 2, folder=str(tmp_path), devices=2, steps=2, **options)
    [[step, found]] = ended.results[0]
    assert step == (0 if options["name"] == "deepspeed" else 1)
    assert ended.results[1] == []
    expected = {
        name: histogram
        for name, histogram in single[0][1].items()
        if options["name"] != "deepspeed" or name.startswith("weights/")
    }
    assert ("gradients are left out" in ended.output) == (options["name"] == "deepspeed")
    assert found.keys() == expected.keys()
    for name, (counts, edges) in expected.items():
        assert edges == pytest.approx(found[name][1], rel=1e-3, abs=1e-6), name
        assert num_values(found[name]) == sum(counts), name
        # A value on an edge may fall to either side, as sums in another order differ in their last bit.
        moved = np.abs(np.cumsum(counts) - np.cumsum(found[name][0])).max()
        assert moved <= 3, name


@pytest.mark.slow
def test_replicas_count_once(tmp_path: Path, single: list[Any]):
    ended = run_forked(fit, 4, folder=str(tmp_path), devices=4, steps=2, name="fsdp2", replicate=2)
    [[_, found]] = ended.results[0]
    assert {n: num_values(h) for n, h in found.items()} == {n: num_values(h) for n, h in single[0][1].items()}


def test_counts_are_numpys():
    values = [torch.randn(1000, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    found = count({"a": values, "b": [torch.tensor([2.0, 2.0])], "c": []}, torch.device("cpu"))
    counts, edges = np.histogram(torch.cat(values).numpy(), bins=BINS)
    assert found["a"][1] == pytest.approx(edges.tolist(), abs=1e-6)
    assert np.abs(np.cumsum(found["a"][0]) - np.cumsum(counts)).max() <= 1
    assert sum(found["b"][0]) == 2
    assert (found["b"][1][0], found["b"][1][-1]) == (1.5, 2.5)
    assert "c" not in found
    assert count({}, torch.device("cpu")) == {}


def test_what_is_not_finite_is_left_out():
    found = count(
        {"a": [torch.tensor([1.0, float("nan"), float("inf"), 3.0])], "b": [torch.tensor([float("nan")])]},
        torch.device("cpu"),
    )
    assert sum(found["a"][0]) == 2
    assert (found["a"][1][0], found["a"][1][-1]) == (1.0, 3.0)
    assert "b" not in found


def test_parts():
    assert part_names(["model.head.a.weight", "model.head.b", "model.body.weight"]) == {
        "model.head.a.weight": "head",
        "model.head.b": "head",
        "model.body.weight": "body",
    }
    assert part_names(["layer.weight", "layer.bias"]) == {"layer.weight": "layer", "layer.bias": "layer"}
    assert part_names(["weight"]) == {"weight": "weight"}
    assert part_names([]) == {}


def test_without_wandb_there_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    batches = Batches([tiny_batch(tiny_config(), 4)])
    quiet_trainer(tmp_path, callbacks=[Histograms(1)], max_steps=1).fit(tiny_module(), datamodule=batches)
    assert "no W&B to log histograms to" in caplog.text
