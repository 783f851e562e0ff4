"""What only a GPU can show; skipped without one."""

import pytest
import torch

from framework.pra.acceleration import Execution, accelerate
from framework.pra.generate import generate
from framework.pra.sampling import SamplerConfig
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_model, tiny_module
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_training_in_bf16_moves_weights_and_averages(tmp_path, compiled):
    config = tiny_config()
    module = tiny_module(config)
    strategy = make_strategy(StrategyConfig(compile=compiled), accelerator="gpu", devices=1)
    batches = [tiny_batch(config, 8, seed=step) for step in range(4)]
    options = {"accelerator": "gpu", "devices": 1, "strategy": strategy, "precision": "bf16-mixed", "max_steps": 4}
    quiet_trainer(tmp_path, **options).fit(module, datamodule=Batches(batches))
    weights, averages = list(module.model.parameters()), list(module.ema.parameters())
    assert all(torch.isfinite(p).all() for p in weights)
    assert any(not torch.equal(p, a) for p, a in zip(weights, averages, strict=True))


def test_samples_do_not_depend_on_the_batch_size():
    model = tiny_model().to("cuda")
    sampler = SamplerConfig(steps=5, guidance=2.0)
    whole, split = (
        torch.cat(list(generate(model, [0, 1, 2, 0, 1], seed=3, sampler=sampler, batch_size=size, device="cuda")))
        for size in (5, 2)
    )
    torch.testing.assert_close(whole, split, atol=1e-4, rtol=1e-4)


def test_a_token_s_step_is_captured(caplog: pytest.LogCaptureFixture):
    ready = accelerate(tiny_model().to("cuda"), "bf16", "auto", torch.device("cuda"))
    ready.draw([0, 1], range(2), seed=3, sampler=SamplerConfig(steps=3))
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("execution", ["auto", "compiled"])
def test_captured_tokens_equal_the_plain_ones(execution: Execution):
    model, labels = tiny_model(image_size=6).to("cuda"), [0, 1, 2, 0, 1, 2]
    ready = accelerate(model, "fp32", execution, torch.device("cuda"))
    for sampler in (SamplerConfig(steps=5, guidance=2.0), SamplerConfig(steps=3)):
        for numbers in (range(3), range(3, 6)):
            made = ready.draw(labels, numbers, seed=3, sampler=sampler)
            plain = accelerate(model, "fp32", "eager", torch.device("cuda"))
            expected = plain.draw(labels, numbers, seed=3, sampler=sampler)
            torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


def test_sampling_under_autocast_stays_near_full_precision():
    model = tiny_model().to("cuda")
    sampler = SamplerConfig(steps=5, method="euler")
    full = torch.cat(list(generate(model, [0, 1], seed=3, sampler=sampler, device="cuda")))
    with torch.autocast("cuda", torch.bfloat16):
        half = torch.cat(list(generate(model, [0, 1], seed=3, sampler=sampler, device="cuda")))
    torch.testing.assert_close(full, half, atol=0.1, rtol=0.1)
    assert not torch.equal(full, half)
