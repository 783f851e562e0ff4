"""What guards a run: one record of options, and the callbacks they make."""

from dataclasses import asdict, dataclass, field

from lightning.pytorch import Callback

from framework.training.callbacks.finite import FiniteGuard, OnNonfinite
from framework.training.callbacks.loss_spike import LossSpikes, SpikeConfig
from framework.training.callbacks.preemption import Preemption
from framework.training.callbacks.watchdog import Watchdog, WatchdogConfig


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """What stops a run, or warns.

    Args:
        on_nonfinite: what a loss or gradient norm that is not finite does: `stop` the run on all ranks, or `skip` the
            optimizer's step (not under DeepSpeed).
        max_skips: steps skipped in a row after which the run stops all the same.
        spikes: when a jump of the loss is warned about.
        watchdog: how long a rank may take before the job is ended with a report.
    """

    on_nonfinite: OnNonfinite = "stop"
    max_skips: int = 10
    spikes: SpikeConfig = field(default_factory=SpikeConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)


def make_guards(config: GuardConfig) -> list[Callback]:
    """The guards' callbacks, in their order."""
    finite = FiniteGuard(on_nonfinite=config.on_nonfinite, max_skips=config.max_skips)
    guards: list[Callback] = [finite, LossSpikes(config.spikes, finite), Preemption()]
    # First: what the others do at the end of a batch is a stage of its own.
    return [Watchdog(config.watchdog), *guards] if any(asdict(config.watchdog).values()) else guards
