"""What the interface says of whole tensors, and how an implementation is found; of sharded ones: `test_fsdp2`."""

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from framework.training.strategies.backend import (
    Devices,
    backend_of_strategy,
    backend_of_tensor,
    gathered,
    gradient_norm,
    is_sharded,
    local_part,
    named_backend,
)
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import STRATEGIES, StrategyConfig


class Saved:
    """A tensor as of a file."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value

    def rows(self, first: int, end: int) -> torch.Tensor:
        return self.value[first:end]

    def whole(self) -> torch.Tensor:
        return self.value


def test_whole_tensors_are_their_own_parts():
    parameter = nn.Parameter(torch.arange(6.0).reshape(2, 3))
    backend = backend_of_tensor(parameter)
    assert backend is named_backend("ddp")
    assert not any(named_backend(name).holds(parameter) for name in STRATEGIES)
    assert local_part(parameter).data_ptr() == parameter.data_ptr()
    assert not local_part(parameter).requires_grad
    assert backend.own_values(parameter).tolist() == [0, 1, 2, 3, 4, 5]
    assert backend.whole_shape(parameter) == (2, 3)
    with torch.no_grad():
        backend.fill(parameter, Saved(torch.ones(2, 3)))
    assert parameter.unique().tolist() == [1]
    assert backend.gather(parameter) is parameter


def test_a_whole_model():
    model = nn.Linear(2, 1)
    assert not is_sharded(model)
    with gathered(model):
        assert not is_sharded(model)
    for parameter, gradient in zip(model.parameters(), ([[3.0, 0.0]], [4.0]), strict=True):
        parameter.grad = torch.tensor(gradient)
    assert gradient_norm(model.parameters()).item() == 5


def test_a_strategy_has_its_backend_and_a_foreign_one_whole_weights():
    ours = make_strategy(StrategyConfig(), accelerator="cpu", devices=2)
    assert backend_of_strategy(ours).title == "DDP"
    foreign = SingleDeviceStrategy(device=torch.device("cpu"))
    assert backend_of_strategy(foreign) is named_backend("ddp")
    assert not named_backend("deepspeed").sees_gradients


def test_processes_of_all_nodes():
    assert Devices(of_node=(torch.device("cpu"),) * 2, num_nodes=3).num_processes == 6
