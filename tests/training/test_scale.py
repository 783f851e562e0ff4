"""What a plan comes to on a cluster, by hand."""

import math
from dataclasses import replace

import pytest

from framework.core.errors import ConfigError
from framework.tracking.devices import Device
from framework.training.planning import Memory, Plan, PlannedRun
from framework.training.scale import ClusterConfig, daly_interval, expect
from framework.training.strategies.config import StrategyConfig

DEVICE = Device(
    name="test", memory_bytes=10, bfloat16_flops=1e12, memory_bandwidth=1e9, link_bandwidth=1e10, words=("test",)
)
CLUSTER = ClusterConfig(
    utilisation=0.5,
    network_gb=1.0,
    storage_gb=2.0,
    host_gb=1.0,
    hours_between_failures=100.0,
    restart_seconds=90.0,
    sample_bytes=1000,
)
PLAN = Plan(
    run=PlannedRun(strategy=StrategyConfig(), num_devices=10, micro_batch=2, accumulation=5, num_nodes=2),
    num_parameters=1,
    memory=Memory(parameters=1, gradients=1, optimizer=1, ema=1, activations=1, buffers=1, host=0, peak=1),
    flops_per_sample=10**11,
    bytes_sent=5 * 10**9,
    bytes_between_nodes=10**9,
    bytes_read=3 * 10**9,
    checkpoint_bytes=20 * 10**9,
)


def test_a_step_takes_as_long_as_its_slowest_part():
    found = expect(PLAN, DEVICE, CLUSTER)
    # 100 samples on 10 devices: 10^12 operations each, at half of 10^12 a second.
    assert found.arithmetic_seconds == pytest.approx(2.0)
    assert found.memory_seconds == pytest.approx(3.0)
    assert found.link_seconds == pytest.approx(0.5)
    assert found.network_seconds == pytest.approx(1.0)
    assert found.step_seconds == pytest.approx(3.0)
    assert found.samples_per_second == pytest.approx(100 / 3)
    assert found.read_bytes_per_second == pytest.approx(100_000 / 3)
    network = expect(replace(PLAN, bytes_between_nodes=4 * 10**9), DEVICE, CLUSTER)
    assert network.step_seconds == network.network_seconds == pytest.approx(4.0)


def test_what_checkpoints_and_failures_cost():
    found = expect(PLAN, DEVICE, CLUSTER)
    # Each of the 10 hosts takes 2 GB at 1 GB/s; the storage all 20 at 2.
    assert found.snapshot_seconds == pytest.approx(2.0)
    assert found.write_seconds == pytest.approx(10.0)
    assert found.hours_between_failures == pytest.approx(10.0)
    interval = daly_interval(2.0, 36000.0)
    assert found.interval_seconds == pytest.approx(interval)
    assert interval == pytest.approx(math.sqrt(2 * 2 * 36000), rel=0.01)
    assert found.lost_share == pytest.approx(2 / interval + (interval / 2 + 10 + 90) / 36000)


def test_the_interval_loses_least():
    """No other interval does better, in the exact model of Daly's equation 20."""
    cost, between, restart = 60.0, 3000.0, 30.0

    def total(interval: float) -> float:
        return between * math.exp(restart / between) * math.expm1((interval + cost) / between) / interval

    best = daly_interval(cost, between)
    grid = [best * factor for factor in (0.5, 0.8, 0.9, 1.1, 1.2, 2.0)]
    assert total(best) <= min(map(total, grid))
    assert daly_interval(7000.0, between) == between


def test_checkpoints_do_not_overlap_and_loss_is_a_share():
    slow = expect(PLAN, DEVICE, replace(CLUSTER, storage_gb=0.01))
    assert slow.interval_seconds == slow.write_seconds == pytest.approx(2000.0)
    hopeless = expect(PLAN, DEVICE, replace(CLUSTER, hours_between_failures=0.01))
    assert hopeless.lost_share == 1.0


@pytest.mark.parametrize(("name", "value"), [("network_gb", 0.0), ("storage_gb", -1.0), ("utilisation", 1.5)])
def test_numbers_out_of_range(name: str, value: float):
    with pytest.raises(ConfigError, match=f"cluster.{name} {value}"):
        ClusterConfig(**{name: value})
