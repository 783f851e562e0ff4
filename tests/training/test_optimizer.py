"""Optimizer groups by tags, and the schedule by hand."""

from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from framework.core.errors import ConfigError
from framework.core.param_tags import NO_DECAY, tags_of
from framework.pra.network.config import VariantName
from framework.testing.models import quiet_trainer, tiny_model
from framework.training.callbacks.finite import FiniteGuard
from framework.training.optimizer import (
    ClippingModule,
    OptimizerConfig,
    build_optimizer,
    build_schedule,
    learning_rate_factor,
    misfit_of_schedule,
    skips_by_flag,
)


@pytest.mark.parametrize("variant", ["pra", "teacher_forced"])
def test_every_trainable_parameter_is_in_one_group(variant: VariantName):
    model = tiny_model(variant=variant)
    model.transformer.norm.weight.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.1, betas=(0.8, 0.9), weight_decay=0.3))
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert len(grouped) == len(trainable)
    assert {id(p) for p in grouped} == {id(p) for p in trainable}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert all(group["lr"] == 0.1 and group["betas"] == (0.8, 0.9) for group in optimizer.param_groups)


@pytest.mark.parametrize("context", ["causal", "none"])
def test_matrices_decay_and_nothing_else(context: str):
    model = tiny_model(decoder_context=context)
    decay, no_decay = build_optimizer(model, OptimizerConfig()).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(tags_of(p) == {NO_DECAY} for p in no_decay["params"])
    for p in decay["params"]:
        assert tags_of(p) == frozenset()
        assert p.ndim == 2, names[id(p)]
    kept = {names[id(p)] for p in no_decay["params"]}
    embeddings = {"transformer.class_embedding.weight", "transformer.class_slots"}
    assert embeddings <= kept
    assert {name for name in kept if not name.endswith("bias") and "norm" not in name} == embeddings


def test_weight_decay_shrinks_only_its_group():
    model = tiny_model()
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (1.0 if NO_DECAY in tags_of(p) else 0.95))


def factors(config: OptimizerConfig, steps: list[int], total: int) -> list[float]:
    return [learning_rate_factor(step, config, total) for step in steps]


def test_warm_up_and_constant_by_hand():
    config = OptimizerConfig(warmup_steps=4)
    assert factors(config, [0, 1, 2, 3, 4, 5, 1000], -1) == [0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert factors(OptimizerConfig(warmup_steps=0), [0, 1], -1) == [1, 1]


def test_cosine_by_hand():
    config = OptimizerConfig(warmup_steps=2, schedule="cosine", final_fraction=0.2)
    # From step 2, half way at step 6, at the end at step 10: 0.2 + 0.8 * (1 + cos(pi * progress)) / 2.
    quarter = 0.2 + 0.8 * (1 + 0.5**0.5) / 2
    assert factors(config, [0, 1, 2, 4, 6, 10, 11], 10) == pytest.approx([0.5, 1, 1, quarter, 0.6, 0.2, 0.2])
    assert all(after < before for before, after in pairwise(factors(config, list(range(2, 11)), 10)))


def test_cosine_of_a_run_shorter_than_its_warm_up():
    config = OptimizerConfig(warmup_steps=10, schedule="cosine")
    assert factors(config, [0, 4], 5) == [0.1, 0.5]


def test_the_schedule_sets_every_group():
    optimizer = build_optimizer(tiny_model(), OptimizerConfig(learning_rate=0.4, warmup_steps=2))
    schedule = build_schedule(optimizer, OptimizerConfig(learning_rate=0.4, warmup_steps=2), -1)
    rates = []
    for _ in range(3):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates == [[0.2, 0.2], [0.4, 0.4], [0.4, 0.4]]


def test_cosine_without_an_end():
    optimizer = build_optimizer(tiny_model(), OptimizerConfig())
    with pytest.raises(ConfigError, match=r"a cosine schedule in a run without an end: set trainer\.max_steps"):
        build_schedule(optimizer, OptimizerConfig(schedule="cosine"), -1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, r"learning_rate 0\.0: use a positive number"),
        ({"learning_rate": -1.0}, r"learning_rate -1\.0"),
        ({"warmup_steps": -1}, "warmup_steps -1: use 0 or more"),
    ],
)
def test_optimizers_that_cannot_be(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        OptimizerConfig(**changes)


def test_muon_takes_the_matrices_that_decay_and_adamw_the_rest():
    model = tiny_model()
    config = OptimizerConfig(method="muon", learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(model, config)
    muon, adamw = optimizer.param_groups
    assert all(p.ndim == 2 and NO_DECAY not in tags_of(p) for p in muon["params"])
    assert all(NO_DECAY in tags_of(p) for p in adamw["params"])
    matrix, other = muon["params"][0], adamw["params"][0]
    before, old = matrix.detach().clone(), other.detach().clone()
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    gradient = matrix.grad.clone()
    optimizer.step()
    # Five steps of Newton-Schulz bring all singular values near 1; the step has AdamW's size, 0.2 a value.
    update = (before * 0.95 - matrix.detach()) / 0.1
    values = torch.linalg.svdvals(update / (0.2 * max(update.shape) ** 0.5))
    assert ((values > 0.6) & (values < 1.3)).all()
    assert (torch.sign(update) == torch.sign(gradient)).float().mean() > 0.6
    torch.testing.assert_close((other.detach() - old).abs(), torch.full_like(old, 0.1), rtol=1e-3, atol=1e-4)


def test_muons_state_is_saved_and_loaded():
    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
        optimizer.step()

    config = OptimizerConfig(method="muon", learning_rate=0.01)
    one, two = tiny_model(), tiny_model()
    first, second = build_optimizer(one, config), build_optimizer(two, config)
    step(one, first, 0)
    two.load_state_dict(one.state_dict())
    second.load_state_dict(deepcopy(first.state_dict()))
    for seed in (1, 2):
        step(one, first, seed)
        step(two, second, seed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def stepped(fused: bool, **config: Any) -> list[torch.Tensor]:
    model = tiny_model()
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=0.01, weight_decay=0.1, **config), fused=fused)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def test_one_kernel_makes_the_steps_of_tensor_by_tensor():
    for fast, slow in zip(stepped(True), stepped(False), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-6)


def test_only_one_kernel_can_be_told_on_the_device_not_to_step():
    model = tiny_model()
    assert skips_by_flag(build_optimizer(model, OptimizerConfig()))
    assert not skips_by_flag(build_optimizer(model, OptimizerConfig(), fused=False))
    assert not skips_by_flag(build_optimizer(model, OptimizerConfig(method="muon")))


class Clipped(ClippingModule):
    """A loss with the gradient (3, 4), whose norm is 5."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.gradient: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight * batch).sum()

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        if self.weight.grad is not None:
            self.gradient = self.weight.grad.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), fused=True)


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize(
    ("algorithm", "value", "expected"),
    [("norm", 0.5, [0.3, 0.4]), ("norm", 6.0, [3.0, 4.0]), ("value", 3.5, [3.0, 3.5]), ("norm", None, [3.0, 4.0])],
)
def test_clipping(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
    algorithm: str,
    value: float | None,
    expected: list[float],
):
    norms = []
    measure = torch.nn.utils.get_total_norm
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", lambda *a, **k: norms.append(1) or measure(*a, **k))
    module = Clipped()
    trainer = quiet_trainer(
        tmp_path,
        callbacks=[FiniteGuard()] if guarded else [],
        max_steps=2,
        precision="bf16-mixed",
        gradient_clip_val=value,
        gradient_clip_algorithm=algorithm,
    )
    trainer.fit(module, DataLoader([torch.tensor([3.0, 4.0])] * 2, batch_size=None))
    assert module.gradient == pytest.approx(expected, abs=1e-4)
    # The guard's, or the one that clips: never both.
    assert len(norms) == (2 if guarded or (value and algorithm == "norm") else 0)


@pytest.mark.parametrize(
    ("config", "total", "expected"),
    [
        (OptimizerConfig(warmup_steps=100), 100, None),
        (OptimizerConfig(warmup_steps=100), -1, None),
        (OptimizerConfig(warmup_steps=100, schedule="cosine"), 101, None),
        (OptimizerConfig(warmup_steps=1000), 20, "rises to 0.02 of learning_rate"),
        (OptimizerConfig(warmup_steps=20, schedule="cosine"), 20, "rises to 1 of learning_rate, and the cosine never"),
        (OptimizerConfig(warmup_steps=0, final_fraction=0.1), -1, "final_fraction 0.1 changes nothing"),
    ],
)
def test_what_of_a_schedule_has_no_effect(config: OptimizerConfig, total: int, expected: str | None):
    told = misfit_of_schedule(config, total)
    assert told is None if expected is None else told is not None and expected in told


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_a_fraction_of_the_peak(fraction: float):
    with pytest.raises(ConfigError, match=rf"final_fraction {fraction}: use a fraction of the peak"):
        OptimizerConfig(final_fraction=fraction)
