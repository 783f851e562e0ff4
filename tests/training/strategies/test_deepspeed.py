"""DeepSpeed's strategy, apart from a training: what is refused, and what its plan says."""

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from framework.core.errors import ConfigError
from framework.training.strategies.backend import Devices, backend_of_tensor
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import DeepSpeedOptions, StrategyConfig
from framework.training.strategies.deepspeed import DeepSpeed, Float32DeepSpeedPrecision
from framework.training.strategies.workload import ProcessShare, Workload


def test_deepspeed_needs_a_gpu_and_its_package(monkeypatch: pytest.MonkeyPatch):
    config = StrategyConfig(name="deepspeed")
    with pytest.raises(ConfigError, match="deepspeed on the device cpu: it needs GPUs; use fsdp2 or ddp"):
        make_strategy(config, accelerator="cpu", devices=2)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ConfigError, match=r'pip install "framework\[deepspeed\]"'):
        DeepSpeed().make(config, Devices(of_node=(torch.device("cuda", 0),)))


def workload(accumulation: int = 1) -> Workload:
    """10 values on four processes, of which each has 3, the last one's padded."""
    shapes = {"weight": torch.Size([2, 4]), "bias": torch.Size([2])}
    return Workload(
        shapes=shapes,
        largest_unit=10,
        largest_trained_unit=10,
        num_processes=4,
        accumulation=accumulation,
        forward_values=lambda: 10,
        backward_values=lambda: 10,
    )


def partitioned(values: list[float]) -> torch.nn.Parameter:
    """A parameter as ZeRO-3 leaves it: empty, with the rank's part beside it."""
    parameter = torch.nn.Parameter(torch.tensor(values))
    for name in ("ds_tensor", "ds_shape", "ds_numel", "ds_status", "ds_active_sub_modules"):
        setattr(parameter, name, None)
    parameter.all_gather = parameter.partition = print
    return parameter


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # The buckets of gradients take 2 * 10 values of 4 bytes; stage 3 gathers 10 more.
        (DeepSpeedOptions(stage=1), ProcessShare(parameters=10, gradients=10, optimizer=9, ema=10, buffers=80)),
        (DeepSpeedOptions(stage=2), ProcessShare(parameters=10, gradients=3, optimizer=9, ema=10, buffers=80)),
        (DeepSpeedOptions(stage=3), ProcessShare(parameters=3, gradients=3, optimizer=9, ema=3, buffers=120)),
    ],
)
def test_what_a_process_holds_in_each_stage(options: DeepSpeedOptions, expected: ProcessShare):
    config = StrategyConfig(name="deepspeed", deepspeed=options)
    assert DeepSpeed().plan_share(config, workload()) == expected
    offloaded = StrategyConfig(name="deepspeed", deepspeed=replace(options, offload_optimizer=True))
    assert DeepSpeed().plan_share(offloaded, workload()) == replace(expected, hosted=("optimizer",))


def test_what_a_process_sends():
    def sent(stage: Literal[2, 3]) -> int:
        config = StrategyConfig(name="deepspeed", deepspeed=DeepSpeedOptions(stage=stage))
        return DeepSpeed().plan_bytes_sent(config, workload(accumulation=3))

    # A ring over four processes sends 10 * 4 * 3 / 4 = 30 bytes: twice for a sum, and in stage 3 three times for each
    # of three micro-batches.
    assert (sent(2), sent(3)) == (60, 270)


def test_each_value_is_counted_on_one_rank(monkeypatch: pytest.MonkeyPatch):
    counted = []
    for rank, part in enumerate(([0.0, 1.0], [2.0, 0.0], [0.0, 0.0])):
        parameter = partitioned([])
        parameter.ds_tensor, parameter.ds_numel, parameter.ds_shape = torch.tensor(part), 3, torch.Size([3, 1])
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        counted += DeepSpeed().own_values(parameter).tolist()
        assert DeepSpeed().local_part(parameter).tolist() == part
        assert DeepSpeed().whole_shape(parameter) == (3, 1)
        assert backend_of_tensor(parameter).title == "DeepSpeed"
    assert counted == [0, 1, 2]


def test_a_layer_is_gathered_for_both_passes_and_let_go_of_after_each():
    calls: list[str] = []
    layer = torch.nn.Linear(2, 2)
    layer.weight, layer.bias = partitioned([[1.0, 2.0], [3.0, 4.0]]), partitioned([0.0, 0.0])
    layer.weight.all_gather = lambda param_list: calls.append(f"gather {len(param_list)}")
    layer.weight.partition = lambda param_list, has_been_updated: calls.append(f"release {has_been_updated}")
    sharded = DeepSpeed().as_layer(layer)
    assert sharded.module is layer
    output = layer(torch.ones(2, requires_grad=True))
    assert calls == ["gather 2", "release False"]
    output.sum().backward()
    assert calls == ["gather 2", "release False"] * 2


def test_the_norm_is_the_engine_s():
    def norm_of(value: torch.Tensor | None) -> float | None:
        strategy = SingleDeviceStrategy(device=torch.device("cpu"))
        parts = ("optimizer", "checkpoint_engine", "save_checkpoint", "load_checkpoint")
        engine: Any = SimpleNamespace(**dict.fromkeys(parts, print), get_global_grad_norm=lambda: value)
        strategy.model = engine
        return DeepSpeed().norm_after_step(strategy)

    assert norm_of(torch.tensor(2.5)) == 2.5
    assert norm_of(None) is None
    # What it says for one that is not finite.
    assert norm_of(torch.tensor(-1.0)) == float("inf")


def test_mixed_precision_leaves_a_batch_as_it_is():
    precision, batch = Float32DeepSpeedPrecision("bf16-mixed", "cpu"), {"images": torch.ones(2)}
    assert precision.convert_input(batch) is batch
    assert batch["images"].dtype == torch.float32
    with precision.forward_context():
        assert (torch.ones(1, 2) @ torch.ones(2, 1)).dtype == torch.bfloat16
    with Float32DeepSpeedPrecision("32-true", "cpu").forward_context():
        assert (torch.ones(1, 2) @ torch.ones(2, 1)).dtype == torch.float32
