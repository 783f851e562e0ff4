"""Agents on a GPU; skipped without one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from framework.bench.gpu.synchronisations import counted_waits
from framework.bench.gpu.waits import WaitsOfSteps
from framework.gbc.attribution.options import GradientOptions, Scalar
from framework.gbc.attribution.token_gradients import token_scores
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.language_models.interface import Piece, Reply, Request
from framework.gbc.language_models.local import LocalModel
from framework.gbc.language_models.lora import AdapterConfig
from framework.gbc.language_models.straight_through import make_soft_prompts
from framework.gbc.training.parameters import SoftConfig
from framework.testing.agent_training import ALL, OPTIMIZER, SOFT, fit, make_module
from framework.testing.agents import make_world
from framework.testing.language_models import tiny_language_model, tiny_local_model
from framework.testing.processes.gpus import run_on_gpus
from framework.tracking.metric_files import read_metrics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


class Devices(Callback):
    """Where the parameters are in training; Lightning takes them off the GPU at the end."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.seen = {parameter.device.type for parameter in pl_module.parameters()}


def losses(run_dir: Path) -> list[float]:
    return [*read_metrics(run_dir)["loss/target_nats_per_token"].values()]


def test_soft_prompts_gates_and_adapters_learn_as_on_the_cpu(world: Path, tmp_path: Path):
    for accelerator in ("gpu", "cpu"):
        module = make_module(world, soft=ALL, optimizer=OPTIMIZER)
        where = Devices()
        fit(world, tmp_path / accelerator, module, steps=3, accelerator=accelerator, callbacks=[where])
        assert where.seen == {"cuda" if accelerator == "gpu" else "cpu"}
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


class OutsideGeneration(WaitsOfSteps):
    """Waits of each step that are not of the models' answers, whose tokens the host has to see."""

    def __init__(self, count: Callable[[], Counter[str]], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(lambda: count() - self.of_answers)
        self.of_answers: Counter[str] = Counter()
        generate = LocalModel.generate

        def counted(*args: Any, **options: Any) -> Any:
            before = count()
            output = generate(*args, **options)
            self.of_answers += count() - before
            return output

        monkeypatch.setattr(LocalModel, "generate", counted)


@pytest.mark.parametrize("soft", [SOFT, ALL], ids=["soft prompts and gates", "adapters"])
def test_a_step_waits_for_answers_alone(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soft: SoftConfig):
    module = make_module(world, soft=soft, optimizer=OPTIMIZER, attribute_every_n_steps=0)
    with counted_waits() as count:
        noted = OutsideGeneration(count, monkeypatch)
        options = {"callbacks": [noted], "log_every_n_steps": 4, "save_every_n_steps": 100}
        fit(world, tmp_path, module, steps=4, accelerator="gpu", **options)
    # The first one reads the prompts, and what the models make once.
    between = noted.steps()[1:]
    assert noted.of_answers.total() > 0
    assert not any(between), between


def test_a_training_goes_on_from_its_checkpoint(world: Path, tmp_path: Path):
    whole, first, then = (make_module(world, soft=ALL, optimizer=OPTIMIZER) for _ in range(3))
    fit(world, tmp_path / "whole", whole, steps=4, accelerator="gpu")
    fit(world, tmp_path / "parts", first, steps=2, accelerator="gpu")
    trainer = fit(world, tmp_path / "parts", then, steps=4, accelerator="gpu")
    for ours, theirs in zip(then.steering.parameters(), whole.steering.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    # A count on the device would make the optimizer wait for it at every step, if it is not a fused one.
    (optimizer,) = trainer.optimizers
    fused = bool(optimizer.param_groups[0].get("fused"))
    steps = [state["step"] for state in optimizer.state.values()]
    assert steps
    assert all(step.is_cuda == fused for step in steps)


def train_on_two(world: str, run_dir: str, strategy: str) -> list[float]:
    soft = replace(ALL, adapters=AdapterConfig(rank=2, targets=("q_proj",)))
    module = make_module(Path(world), soft=soft, optimizer=OPTIMIZER)
    fit(Path(world), Path(run_dir), module, steps=2, devices=2, accelerator="gpu", strategy=strategy)
    return losses(Path(run_dir))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_gpus_train_agents(world: Path, tmp_path: Path, strategy: str):
    results = run_on_gpus(train_on_two, 2, world=str(world), run_dir=str(tmp_path), strategy=strategy)
    assert len(results[0]) == 2


def test_first_values_are_those_of_the_cpu_whatever_the_default_device():
    plain = tiny_local_model()
    expected = make_soft_prompts(plain, ["a"], num_tokens=3, seed=1)["a"]
    plain.adapters.add(["a"], AdapterConfig(rank=2))
    values = plain.adapters.init_values("a", seed=1)
    with torch.device("cuda"):
        assert torch.equal(make_soft_prompts(plain, ["a"], num_tokens=3, seed=1)["a"], expected)
        assert torch.equal(plain.adapters.init_values("a", seed=1), values)


def test_sampled_answers_are_those_of_the_cpu():
    requests = [
        Request(step="a", prompt="p", pieces=(Piece(text="q"),), seed=seed, max_new_tokens=8) for seed in range(4)
    ]
    local = tiny_local_model(temperature=1.0)
    expected = local.reply(requests)
    local.model.to("cuda")
    assert local.reply(requests) == expected
    assert len({reply.output_ids for reply in expected if isinstance(reply, Reply)}) > 1


@pytest.mark.parametrize("scalar", ["finegrained", "sum_squares"])
def test_scores_are_those_of_the_cpu(scalar: Scalar):
    rows = [
        TokenRow(input_ids=tuple(range(5, 5 + length)), prefix=prefix, output_ids=(7, 8, 9)[: 1 + length % 3])
        for length, prefix in ((9, 4), (12, 4), (7, 0))
    ]
    model = tiny_language_model(vocabulary=97)
    expected = token_scores(model, rows, GradientOptions(scalar=scalar, gradients_at_once=1))
    model.to("cuda")
    for at_once in (None, 1, 2):
        found = token_scores(model, rows, GradientOptions(scalar=scalar, gradients_at_once=at_once))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.l1, theirs.l1, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(ours.log_probs, theirs.log_probs, rtol=1e-4, atol=1e-4)
