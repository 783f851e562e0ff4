"""What a run needs, by hand for every strategy; `tests/cli/test_plan.py` compares with real processes."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from framework.pra.loss import ObjectiveConfig
from framework.pra.planning.flops import saved_tensors
from framework.pra.planning.memory import Run, make_plan
from framework.testing.models import tiny_config
from framework.tracking.devices import GIB
from framework.training.strategies.config import DeepSpeedOptions, FSDP2Options, StrategyConfig

# See tests/pra/network/test_model.py: 11,044 values in 31 tensors; the head without its block is the largest unit.
CONFIG = tiny_config(variant="teacher_forced")
VALUES, TENSORS, LARGEST = 11_044, 31, 5_348
# Cosines and sines of six positions for half of a head of eight values.
TABLES = 2 * 6 * 4
# On eight ranks two class tokens, four classes and the four outputs of the head do not divide: a row or a value each.
EIGHTH = (VALUES - 2 * 16 - 4 * 16 - 4 * 16 - 4) // 8 + 16 + 16 + 16 + 1


def run_of(strategy: StrategyConfig, num_devices: int, **options: Any) -> Run:
    given: dict[str, Any] = {"micro_batch": 2, "precision": "32-true", **options}
    return Run(architecture=CONFIG, objective=ObjectiveConfig(), strategy=strategy, num_devices=num_devices, **given)


def fsdp2(**options: Any) -> StrategyConfig:
    return StrategyConfig(name="fsdp2", fsdp2=FSDP2Options(**options))


def zero(stage: Any, **options: Any) -> StrategyConfig:
    return StrategyConfig(name="deepspeed", deepspeed=DeepSpeedOptions(stage=stage, **options))


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Values that the process with most holds; bytes of its buffers, and bytes that it sends."""

    parameters: int = VALUES
    gradients: int = VALUES
    optimizer: int = 2 * VALUES
    ema: int = VALUES
    buffers: int = 0
    sent: float = 0


HALF, QUARTER = VALUES // 2, VALUES // 4
HALVES = Expected(parameters=HALF, gradients=HALF, optimizer=2 * HALF, ema=HALF)
# A sum of b bytes over n processes sends 2 (n - 1) / n b, a gathering or a scattering sum half of that.
SUM = 2 * 3 / 4 * 4 * VALUES
EXPECTED = [
    (StrategyConfig(), 1, Expected()),
    (StrategyConfig(), 4, Expected(sent=SUM)),
    # Two units gathered and two gradients in flight; gathered twice, summed and scattered once.
    (fsdp2(), 2, replace(HALVES, buffers=16 * LARGEST, sent=3 / 2 * 4 * VALUES)),
    (
        fsdp2(),
        8,
        Expected(
            parameters=EIGHTH,
            gradients=EIGHTH,
            optimizer=2 * EIGHTH,
            ema=EIGHTH,
            buffers=16 * LARGEST,
            sent=3 * 7 / 8 * 4 * VALUES,
        ),
    ),
    # Kept whole, weights are gathered once.
    (
        fsdp2(reshard_after_forward=False),
        2,
        replace(HALVES, buffers=4 * VALUES + 8 * LARGEST, sent=2 / 2 * 4 * VALUES),
    ),
    # Two replicas of two shards: as with two, and the sum of a half over the replicas.
    (fsdp2(replicate=2), 4, replace(HALVES, buffers=16 * LARGEST, sent=3 / 2 * 4 * VALUES + 4 * HALF)),
    # A master copy beside the two moments is sharded; two buckets hold all gradients.
    (zero(1), 4, Expected(optimizer=3 * QUARTER, buffers=8 * VALUES, sent=SUM)),
    (zero(2), 4, Expected(gradients=QUARTER, optimizer=3 * QUARTER, buffers=8 * VALUES, sent=SUM)),
    (
        zero(3),
        4,
        Expected(
            parameters=QUARTER,
            gradients=QUARTER,
            optimizer=3 * QUARTER,
            ema=QUARTER,
            buffers=12 * VALUES,
            sent=1.5 * SUM,
        ),
    ),
]


@pytest.mark.parametrize(("strategy", "num_devices", "expected"), EXPECTED)
def test_memory_and_communication_by_hand(strategy: StrategyConfig, num_devices: int, expected: Expected):
    plan = make_plan(run_of(strategy, num_devices))
    found = plan.memory
    assert plan.num_parameters == VALUES
    assert found.parameters == 4 * (expected.parameters + TABLES)
    assert found.gradients == 4 * expected.gradients
    assert found.optimizer == 4 * (expected.optimizer + TENSORS)
    assert found.ema == 4 * (expected.ema + TABLES)
    assert found.buffers == expected.buffers
    assert found.host == 0
    assert plan.bytes_sent == expected.sent


# The head's values and tensors, and the values of the transformer's block.
HEAD, HEAD_TENSORS, BLOCK = 6_708, 18, 4_144
OF_HEAD = Expected(gradients=HEAD, optimizer=2 * HEAD)


@pytest.mark.parametrize(
    ("strategy", "num_devices", "expected"),
    [
        (StrategyConfig(), 1, OF_HEAD),
        (StrategyConfig(), 4, replace(OF_HEAD, sent=2 * 3 / 4 * 4 * HEAD)),
        # No gradient flows through the transformer, which is gathered forward alone.
        (
            fsdp2(),
            2,
            replace(
                HALVES,
                gradients=HEAD // 2,
                optimizer=HEAD,
                buffers=16 * LARGEST,
                sent=1 / 2 * 4 * (VALUES + 2 * HEAD),
            ),
        ),
        (
            zero(2),
            4,
            replace(OF_HEAD, gradients=HEAD // 4, optimizer=3 * HEAD // 4, buffers=8 * HEAD, sent=2 * 3 / 4 * 4 * HEAD),
        ),
        (
            zero(3),
            4,
            Expected(
                parameters=QUARTER,
                gradients=HEAD // 4,
                optimizer=3 * HEAD // 4,
                ema=QUARTER,
                buffers=8 * HEAD + 4 * VALUES,
                sent=3 / 4 * 4 * (VALUES + 2 * HEAD),
            ),
        ),
    ],
)
def test_a_part_that_learns_alone_by_hand(strategy: StrategyConfig, num_devices: int, expected: Expected):
    plan = make_plan(run_of(strategy, num_devices, trainable=("head",)))
    found = plan.memory
    assert (plan.num_parameters, plan.num_trained) == (VALUES, HEAD)
    assert found.parameters == 4 * (expected.parameters + TABLES)
    assert found.gradients == 4 * expected.gradients
    assert found.optimizer == 4 * (expected.optimizer + HEAD_TENSORS)
    assert found.ema == 4 * (expected.ema + TABLES)
    assert found.buffers == expected.buffers
    assert plan.bytes_sent == expected.sent
    # Weights and averages of all, moments of the head.
    assert plan.checkpoint_bytes == 4 * (2 * VALUES + 2 * HEAD)


def test_gradients_flow_through_what_does_not_learn():
    plan = make_plan(run_of(fsdp2(), 2, trainable=("transformer",)))
    assert plan.num_trained == VALUES - HEAD
    # The head is gathered backward too, but has no gradient: the largest one is of the transformer's block.
    assert plan.bytes_sent == 1 / 2 * 4 * (2 * VALUES + plan.num_trained)
    assert plan.memory.buffers == 8 * LARGEST + 8 * BLOCK


def test_what_is_offloaded_is_on_the_host():
    moved = make_plan(run_of(fsdp2(cpu_offload=True), 2)).memory
    assert moved.host == 4 * 5 * VALUES // 2
    moved = make_plan(run_of(zero(3, offload_parameters=True, offload_optimizer=True), 4)).memory
    assert moved.host == 4 * 5 * VALUES // 4


def test_the_peak_of_a_single_process_by_hand():
    run = run_of(StrategyConfig(), 1)
    saved = saved_tensors(CONFIG, run.objective, micro_batch=2, precision="32-true")
    # Weights, averages, two moments; the tables twice; the optimizer's step with gradients, in one kernel in place.
    fixed, update = 16 * VALUES + 8 * TABLES, 4 * VALUES
    assert make_plan(run).memory.activations == saved.activations
    assert make_plan(run).memory.peak == fixed + max(saved.activations, update) + GIB
    # With accumulation the gradients are there during the backward pass too.
    more = make_plan(replace(run, accumulation=2)).memory
    assert more.peak == fixed + max(saved.activations + 4 * VALUES, update) + GIB
