"""The diffusion head: the flow's path, two ways to put out one velocity, and where its modulations come from."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framework.pra.network.head import (
    JUMP_PART,
    LAST_TIME,
    DiffusionHead,
    SharedModulationMLP,
    TimeEmbedding,
    interpolate,
)
from framework.pra.network.model import PRA
from framework.testing.models import tiny_config, tiny_model


def make_head(prediction: str) -> DiffusionHead:
    return DiffusionHead(target_size=3, context_width=6, width=8, depth=1, prediction=prediction)


class Knows(nn.Module):
    """A network that puts out what it was made with."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.output


def test_path_by_hand():
    noise, target = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 2.0]])
    assert interpolate(noise, target, torch.tensor([0.0])).tolist() == [[1.0, -2.0]]
    assert interpolate(noise, target, torch.tensor([1.0])).tolist() == [[3.0, 2.0]]
    assert interpolate(noise, target, torch.tensor([0.25])).tolist() == [[1.5, -1.0]]


def test_the_clean_target_gives_the_velocity():
    torch.manual_seed(0)
    noise, target = torch.randn(2, 100, 3)
    time = torch.linspace(0, 0.999, 100)
    head = make_head("clean")
    head.network = Knows(target)
    velocity = head(interpolate(noise, target, time), time, torch.zeros(100, 6))
    torch.testing.assert_close(velocity, target - noise, rtol=1e-3, atol=1e-3)


def test_the_weight_of_the_clean_prediction_is_bounded():
    # A network that is wrong by 1: its velocity is wrong by 1 / (1 - t), which counts as 1 / (1 - LAST_TIME) at most.
    time = torch.tensor([0.5, LAST_TIME, 0.999])
    error = (1 / (1 - time))[:, None].expand(3, 3)
    torch.testing.assert_close(
        make_head("clean").weigh_error(error, time), torch.tensor([2.0, 20.0, 20.0])[:, None].expand(3, 3)
    )
    assert torch.equal(make_head("velocity").weigh_error(error, time), error)


def test_the_velocity_is_the_network_s_output():
    head = make_head("velocity")
    head.network = Knows(torch.arange(6.0).view(2, 3))
    assert torch.equal(head(torch.ones(2, 3), torch.tensor([0.3, 0.9]), torch.zeros(2, 6)), head.network.output)


def test_the_velocity_depends_on_point_time_and_state():
    head = tiny_model().head
    x, time, hidden = torch.ones(1, 3), torch.tensor([0.5]), torch.ones(1, 16)
    before = head(x, time, hidden)
    for arguments in ((x + 1, time, hidden), (x, time + 0.1, hidden), (x, time, -hidden)):
        assert not torch.isclose(head(*arguments), before).any()


def test_one_state_serves_all_noise_levels_of_a_token():
    head = tiny_model().head
    x, time, hidden = torch.randn(2, 4, 5, 3), torch.rand(2, 4, 5), torch.randn(2, 4, 1, 16)
    torch.testing.assert_close(head(x, time, hidden), head(x, time, hidden.expand(2, 4, 5, 16)))


def test_times_are_told_apart():
    torch.manual_seed(0)
    features = TimeEmbedding(8)(torch.linspace(0, 1, 101))
    # Weights that are gathered in another type than times come in.
    assert TimeEmbedding(8).bfloat16()(torch.linspace(0, 1, 3)).dtype == torch.bfloat16
    assert torch.cdist(features, features).fill_diagonal_(1).min() > 1e-3


@pytest.mark.parametrize(("variant", "prediction"), [("pra", "velocity"), ("x_prediction", "clean")])
def test_a_variant_s_prediction(variant: str, prediction: str):
    assert tiny_model(variant=variant).head.prediction == prediction


# Modulations.


@pytest.mark.parametrize(
    "changes",
    [
        {"head_modulation_every": 2},
        {"head_modulation": "separate"},
        {"head_modulation": "separate", "head_modulation_every": 3},
    ],
)
def test_a_shared_modulation_by_its_formula(changes: dict[str, Any]):
    head = tiny_model(head_depth=3, **changes).head
    network = head.network
    assert isinstance(network, SharedModulationMLP)
    every, separate = changes.get("head_modulation_every", 1), "head_modulation" in changes
    x, time, hidden = torch.randn(5, 3), torch.rand(5), torch.randn(5, 16)
    state, moment = head.project_context(hidden), head.time_embedding(time)
    if separate:
        assert network.time_modulation is not None
        of_time = network.time_modulation(F.silu(moment))
        modulations = [layer(F.silu(state)) + of_time[:, :48] for layer in network.modulations]
        last = network.last_modulation(F.silu(state)) + of_time[:, 48:]
    else:
        modulations = [layer(F.silu(state + moment)) for layer in network.modulations]
        last = network.last_modulation(F.silu(state + moment))
    assert len(modulations) == -(-3 // every)
    y = network.project_in(x)
    for number, block in enumerate(network.blocks):
        shift, scale, gate = modulations[number // every].chunk(3, dim=-1)
        y = y + gate * block.out(F.silu(block.hidden(block.norm(y) * (1 + scale) + shift)))
    shift, scale = last.chunk(2, dim=-1)
    torch.testing.assert_close(head(x, time, hidden), network.project_out(network.norm(y) * (1 + scale) + shift))


@pytest.mark.parametrize("changes", [{}, {"head_modulation_every": 2}, {"head_modulation": "separate"}])
def test_what_is_made_once_gives_the_same_velocity(changes: dict[str, Any]):
    head = tiny_model(head_depth=2, head_jumps=True, **changes).head
    x, hidden = torch.randn(5, 3), torch.randn(5, 16)
    times, jumps = torch.tensor([0.0, 0.3]), torch.tensor([0.3, 0.7])
    state, moments = head.of_state(hidden), head.of_time(times, jumps)
    for step in range(2):
        made = head.velocity(x, times[step], state, tuple(each[step] for each in moments))
        torch.testing.assert_close(made, head(x, times[step].expand(5), hidden, jumps[step].expand(5)))


@pytest.mark.parametrize("changes", [{"head_modulation_every": 2}, {"head_modulation": "separate"}])
def test_a_head_of_shared_modulations_starts_at_zero(changes: dict[str, Any]):
    head = PRA(tiny_config(head_depth=2, **changes)).head
    assert not head(torch.randn(5, 3), torch.rand(5), torch.randn(5, 16)).any()


def test_a_velocity_is_a_jump_of_no_length():
    head = tiny_model(head_jumps=True).head
    x, time, hidden = torch.randn(5, 3), torch.rand(5), torch.randn(5, 16)
    assert torch.equal(head(x, time, hidden), head(x, time, hidden, torch.zeros(5)))
    assert not torch.isclose(head(x, time, hidden), head(x, time, hidden, 1 - time)).all(dim=-1).any()


@pytest.mark.parametrize("modulation", ["joint", "separate"])
def test_what_a_head_knows_of_velocities_stays_where_it_begins_to_learn_jumps(modulation: str):
    known = tiny_model(head_modulation=modulation).head
    learning = PRA(tiny_config(head_modulation=modulation, head_jumps=True)).head
    missing, unknown = learning.load_state_dict(known.state_dict(), strict=False)
    assert {name.split(".")[0] for name in missing} == {JUMP_PART}
    assert unknown == []
    x, time, hidden = torch.randn(5, 3), torch.rand(5), torch.randn(5, 16)
    assert torch.equal(learning(x, time, hidden, 1 - time), known(x, time, hidden))
