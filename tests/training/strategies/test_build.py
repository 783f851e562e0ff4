"""Which strategy comes of a config, and what of it is refused or ignored."""

from dataclasses import replace

import pytest
from lightning.pytorch import strategies

from framework.core.errors import ConfigError
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import DeepSpeedOptions, FSDP2Options, StrategyConfig, StrategyName
from framework.training.strategies.ddp import DDPStrategy
from framework.training.strategies.deepspeed import DeepSpeedStrategy
from framework.training.strategies.fsdp2 import FSDP2Strategy
from framework.training.strategies.single import SingleDeviceStrategy


@pytest.mark.parametrize(
    ("replicate", "devices", "num_nodes", "message"),
    [
        (3, 4, 1, r"replicate 3 does not divide 4 process\(es\): use 2 or 4"),
        (5, 2, 2, r"replicate 5 does not divide 4 process\(es\): use 4"),
    ],
)
def test_a_mesh_that_does_not_fit(
    replicate: int, devices: int, num_nodes: int, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MASTER_ADDR", "train-0")
    config = StrategyConfig(name="fsdp2", fsdp2=FSDP2Options(replicate=replicate))
    with pytest.raises(ConfigError, match=message):
        make_strategy(config, accelerator="cpu", devices=devices, num_nodes=num_nodes)


def test_options_of_another_strategy_are_ignored_with_a_warning():
    config = StrategyConfig(fsdp2=FSDP2Options(replicate=2))
    with pytest.warns(UserWarning, match=r"strategy\.fsdp2 is ignored: strategy\.name is ddp"):
        make_strategy(config, accelerator="cpu", devices=2)
    config = replace(config, name="fsdp2", deepspeed=DeepSpeedOptions(stage=3))
    with pytest.warns(UserWarning, match=r"strategy\.deepspeed is ignored: strategy\.name is fsdp2"):
        make_strategy(config, accelerator="cpu", devices=2)


@pytest.mark.parametrize("name", ["fsdp2", "deepspeed"])
def test_one_graph_of_weights_that_are_gathered_within_it(name: StrategyName, monkeypatch: pytest.MonkeyPatch):
    config = StrategyConfig(name=name, compile="whole")
    with pytest.raises(ConfigError, match=f"compile whole under strategy.name {name}.*set strategy.compile to true"):
        make_strategy(config, accelerator="cpu", devices=2)
    for devices in (1, 2):
        strategy = make_strategy(replace(config, name="ddp"), accelerator="cpu", devices=devices)
        assert strategy.parallelism.compile == "whole"


def test_one_process_and_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASTER_ADDR", "train-0")
    assert isinstance(make_strategy(StrategyConfig(), accelerator="cpu"), SingleDeviceStrategy)
    assert isinstance(make_strategy(StrategyConfig(), accelerator="cpu", devices=2), DDPStrategy)
    assert isinstance(make_strategy(StrategyConfig(), accelerator="cpu", devices="2"), DDPStrategy)
    assert isinstance(make_strategy(StrategyConfig(), accelerator="cpu", devices=1, num_nodes=2), DDPStrategy)
    with pytest.warns(UserWarning, match="fsdp2 on one process shards nothing"):
        assert isinstance(make_strategy(StrategyConfig(name="fsdp2"), accelerator="cpu"), FSDP2Strategy)


def test_they_are_lightning_s():
    assert issubclass(DDPStrategy, strategies.DDPStrategy)
    assert issubclass(FSDP2Strategy, strategies.ModelParallelStrategy)
    assert issubclass(DeepSpeedStrategy, strategies.DeepSpeedStrategy)
