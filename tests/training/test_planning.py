"""What follows from a plan's numbers, by hand."""

from framework.training.planning import Memory, Plan, PlannedRun
from framework.training.strategies.config import StrategyConfig

RUN = PlannedRun(strategy=StrategyConfig(), num_devices=4, micro_batch=3, accumulation=2)
MEMORY = Memory(parameters=4, gradients=4, optimizer=8, ema=4, activations=10, buffers=2, host=8, peak=24)


def test_samples_and_operations_of_an_optimizer_step():
    plan = Plan(run=RUN, num_parameters=1, memory=MEMORY, flops_per_sample=10, bytes_sent=0)
    assert RUN.global_batch == 4 * 3 * 2
    assert plan.flops_per_step == 240


def test_a_device_holds_what_its_peak_takes():
    plan = Plan(run=RUN, num_parameters=1, memory=MEMORY, flops_per_sample=10, bytes_sent=0)
    assert plan.fits(24)
    assert not plan.fits(23)
