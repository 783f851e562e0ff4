"""What a planned run does on a cluster: time of a step, checkpoints, data, and what failures cost (ours).

A step takes as long as the slowest of four things that go on side by side (a roofline): arithmetic, the device's own
memory, the links within a node, the network between nodes. Latencies, stragglers and what cannot overlap are not in it.
"""

import math
from dataclasses import asdict, dataclass

from framework.core.errors import ConfigError
from framework.tracking.devices import Device
from framework.training.planning import Plan

GB = 10**9


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """What the devices of a run stand in.

    Args:
        utilisation: share of its peak that a device reaches in matrix products.
        network_gb: bandwidth of each device to other nodes, in 10^9 bytes a second; 50 are 400 Gbit/s for each.
        storage_gb: bandwidth of the storage of checkpoints, for all nodes together, in 10^9 bytes a second.
        host_gb: bandwidth from a device to its host's memory, in 10^9 bytes a second.
        hours_between_failures: of one device and its share of a node. 50,000 is what Llama 3's 419 unexpected stops in
            54 days on 16,384 GPUs come to (Grattafiori et al. 2024).
        restart_seconds: from a failure to the first new step.
        sample_bytes: of a sample in the storage; 110,000 is the mean of ImageNet's images.
    """

    utilisation: float = 0.4
    network_gb: float = 50.0
    storage_gb: float = 20.0
    host_gb: float = 20.0
    hours_between_failures: float = 50_000.0
    restart_seconds: float = 300.0
    sample_bytes: int = 110_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ConfigError(f"cluster.{name} {value}", hint="give a number above 0")
        if self.utilisation > 1:
            raise ConfigError(f"cluster.utilisation {self.utilisation}", hint="give a share, up to 1")


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What is expected of a run; seconds, bytes and samples.

    Attributes:
        arithmetic_seconds: of an optimizer step on every device, at the given utilisation.
        memory_seconds: of a step's reads of the device's own memory, where the plan counts them.
        link_seconds: of a step's traffic within nodes.
        network_seconds: of a step's traffic between nodes.
        step_seconds: the longest of them.
        samples_per_second: of all devices.
        read_bytes_per_second: from the storage of the data.
        snapshot_seconds: for which training stands still when a checkpoint is taken into the hosts' memory.
        write_seconds: of a checkpoint to the storage, beside the training.
        hours_between_failures: of the whole run.
        interval_seconds: between checkpoints that loses least.
        lost_share: of the time, with that interval: standing still, repeated steps and restarts; at most 1.
    """

    arithmetic_seconds: float
    memory_seconds: float
    link_seconds: float
    network_seconds: float
    step_seconds: float
    samples_per_second: float
    read_bytes_per_second: float
    snapshot_seconds: float
    write_seconds: float
    hours_between_failures: float
    interval_seconds: float
    lost_share: float


def expect(plan: Plan, device: Device, cluster: ClusterConfig) -> Expectation:
    """What a plan comes to.

    Args:
        plan: of a run.
        device: that it runs on.
        cluster: what the devices stand in.
    """
    run = plan.run
    arithmetic = plan.flops_per_step / run.num_devices / (device.bfloat16_flops * cluster.utilisation)
    memory = plan.bytes_read / device.memory_bandwidth
    link = plan.bytes_sent / device.link_bandwidth
    network = plan.bytes_between_nodes / (cluster.network_gb * GB)
    step = max(arithmetic, memory, link, network)
    snapshot = plan.checkpoint_bytes / run.num_devices / (cluster.host_gb * GB)
    write = plan.checkpoint_bytes / (cluster.storage_gb * GB)
    between = cluster.hours_between_failures * 3600 / run.num_devices
    # A checkpoint is written before the next one begins.
    interval = max(daly_interval(snapshot, between), write, step)
    lost = snapshot / interval + (interval / 2 + write + cluster.restart_seconds) / between
    return Expectation(
        arithmetic_seconds=arithmetic,
        memory_seconds=memory,
        link_seconds=link,
        network_seconds=network,
        step_seconds=step,
        samples_per_second=run.global_batch / step,
        read_bytes_per_second=run.global_batch / step * cluster.sample_bytes,
        snapshot_seconds=snapshot,
        write_seconds=write,
        hours_between_failures=between / 3600,
        interval_seconds=interval,
        lost_share=min(1.0, lost),
    )


def daly_interval(cost: float, between: float) -> float:
    """Seconds between checkpoints that lose least (Daly 2006, equation 37; to first order Young 1974, sqrt(2 c m)).

    Args:
        cost: c, the seconds for which a checkpoint holds training up; 0 or more.
        between: m, the mean seconds between failures; above 0.
    """
    if cost >= 2 * between:
        return between
    ratio = cost / (2 * between)
    return math.sqrt(2 * cost * between) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost
