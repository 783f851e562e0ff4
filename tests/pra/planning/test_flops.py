"""Operations and saved tensors, against hand counts and against real passes."""

from dataclasses import replace

import pytest
import torch

from framework.pra.loss import ObjectiveConfig
from framework.pra.network.build import train_only
from framework.pra.network.config import PRAConfig
from framework.pra.network.layers import swiglu_width
from framework.pra.network.model import PRA
from framework.pra.planning.flops import (
    calls_of_parameters,
    recompute_blocks,
    record_forward,
    saved_tensors,
    training_flops_per_image,
)
from framework.testing.models import tiny_config

SMALL = replace(tiny_config(), image_size=16, patch_size=4, width=32, depth=3, head_width=32, head_depth=2)


def matrix(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs


def test_operations_of_a_forward_pass_by_hand():
    config = replace(SMALL, variant="teacher_forced")
    objective = ObjectiveConfig(head_repeats=3)
    tokens, width, pixel, head = 16, 32, 16, 32
    positions = config.class_tokens + tokens - 1
    hidden = swiglu_width(width)
    block = matrix(positions, width, 3 * width) + matrix(positions, width, width)
    block += 2 * matrix(positions, width, positions)
    block += matrix(positions, width, 2 * hidden) + matrix(positions, hidden, width)
    transformer = matrix(tokens - 1, pixel, width) + 3 * block
    # Modulation of each block and of the output sees time and context, and so each repetition.
    draws = 3 * tokens
    network = matrix(draws, pixel, head) + matrix(draws, head, pixel) + matrix(draws, head, 2 * head)
    network += 2 * (matrix(draws, head, 3 * head) + 2 * matrix(draws, head, head))
    time = matrix(draws, 256, head) + matrix(draws, head, head)
    context = matrix(tokens, width, head)
    forward, both = training_flops_per_image(config, objective)
    assert forward == transformer + network + time + context
    # Twice as much again, but for the gradients of inputs that need none.
    assert 2.5 * forward < both < 3 * forward
    # The gradients of its weights, and those of its inputs within it.
    same, of_head = training_flops_per_image(config, objective, ("head",))
    assert same == forward
    assert 1.5 * (network + time + context) < of_head - forward < 2 * (network + time + context)


@pytest.mark.slow
def test_each_pass_of_the_rollout_counts():
    once, twice = (calls_of_parameters(SMALL, ObjectiveConfig(rollout_passes=n)).forward for n in (0, 1))
    assert {once[name] for name in once} == {1}
    assert twice["transformer.blocks.0.attention.out.weight"] == 2
    assert twice["decoder.network.project_in.weight"] == 2
    assert twice["encoder.project_in.weight"] == twice["head.project_context.weight"] == 1
    forward = [training_flops_per_image(SMALL, ObjectiveConfig(rollout_passes=n))[0] for n in (0, 1, 2)]
    assert forward[2] - forward[1] == forward[1] - forward[0] > 0


@pytest.mark.slow
def test_the_backward_pass_uses_what_gradients_flow_through():
    whole = calls_of_parameters(SMALL, ObjectiveConfig())
    assert whole.backward == whole.forward
    for part, through in {"head": {"head"}, "decoder": {"decoder"}, "encoder": {"encoder", "decoder"}}.items():
        calls = calls_of_parameters(SMALL, ObjectiveConfig(), (part,))
        assert calls.forward == whole.forward
        assert {name.partition(".")[0] for name, count in calls.backward.items() if count} == through
    # The targets of jumps are made without gradients.
    jumps = calls_of_parameters(replace(SMALL, head_jumps=True), ObjectiveConfig())
    assert 0 < jumps.backward["head.project_context.weight"] < jumps.forward["head.project_context.weight"]


@pytest.mark.slow
@pytest.mark.parametrize("trainable", [None, ("head",), ("encoder",)])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("every", [0, 1, 2])
def test_saved_tensors_are_those_of_a_real_pass(precision, every: int, trainable: tuple[str, ...] | None):
    objective = ObjectiveConfig()
    options = {"activation_checkpointing": every, "trainable": trainable}
    expected = saved_tensors(SMALL, objective, micro_batch=3, precision=precision, **options)
    model = PRA(SMALL)
    train_only(model, trainable)
    tape = record_forward(model, objective, micro_batch=3, precision=precision)
    recomputed = max((size for number, size in tape.calls() if every and number % every == 0), default=0)
    if every:
        recompute_blocks(model, every)
        tape = record_forward(model, objective, micro_batch=3, precision=precision)
    assert expected.activations == tape.activations + recomputed
    assert expected.weight_copies == tape.weight_copies
    assert (expected.weight_copies > 0) == (precision == "bf16-mixed")


@pytest.mark.slow
def test_recomputation_keeps_less_and_saved_tensors_grow_with_the_batch():
    kept = {
        every: saved_tensors(
            SMALL, ObjectiveConfig(), micro_batch=4, precision="32-true", activation_checkpointing=every
        ).activations
        for every in (0, 1, 2)
    }
    assert kept[1] < kept[2] < kept[0]
    twice = saved_tensors(SMALL, ObjectiveConfig(), micro_batch=8, precision="32-true").activations
    assert twice == pytest.approx(2 * kept[0], rel=0.01)


@pytest.mark.slow
def test_nothing_of_the_kind_is_made():
    large = PRAConfig(image_size=256, patch_size=16, num_classes=1000, width=1280, depth=21, num_heads=20)
    saved = saved_tensors(large, ObjectiveConfig(), micro_batch=512, precision="32-true")
    # More than this machine has.
    assert saved.activations > 500e9
    assert torch.get_default_device() == torch.device("cpu")
