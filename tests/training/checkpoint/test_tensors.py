"""Tensors of a checkpoint: their names, which rank writes which, and that they come back."""

from pathlib import Path

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from framework.core.errors import CheckpointError
from framework.training.checkpoint.tensors import (
    load_model,
    load_optimizers,
    model_tensors,
    optimizer_state,
    share_of,
    split_optimizers,
    write_tensors,
)


@pytest.mark.slow
def test_names_are_free_of_wrappers():
    inner = checkpoint_wrapper(torch.nn.Linear(2, 2))
    module = torch.nn.Module()
    module.model = torch.nn.Sequential(torch.compile(inner), torch.nn.BatchNorm1d(2))
    assert {name for name, _ in module.named_parameters()} & {"model.0._orig_mod._checkpoint_wrapped_module.weight"}
    optimizer = torch.optim.SGD(module.parameters(), momentum=0.9)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    names = {"model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"}
    buffers = {"model.1.running_mean", "model.1.running_var", "model.1.num_batches_tracked"}
    assert model_tensors(module).keys() == names | buffers
    assert optimizer_state(module, optimizer)["state"].keys() == names
    tensors, _ = split_optimizers([optimizer_state(module, optimizer)])
    assert tensors.keys() == {f"optimizers.0.{name}.momentum_buffer" for name in names}


def test_each_rank_writes_a_part_of_what_all_have():
    tensors = {f"{number}": torch.zeros(size) for number, size in enumerate((100, 90, 80, 10, 5, 1))}
    shares = [share_of(tensors, rank, 3, is_part=lambda tensor: False) for rank in range(3)]
    assert sorted(name for share in shares for name in share) == sorted(tensors)
    assert max(sum(tensor.numel() for tensor in share.values()) for share in shares) == 100


def test_an_optimizer_goes_on_from_what_was_saved_of_it(tmp_path: Path):
    """A module and its optimizer come back and take the same next step as the ones that were saved."""

    def made(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        module = torch.nn.Linear(3, 2)
        return module, torch.optim.AdamW([{"params": [module.weight]}, {"params": [module.bias], "lr": 0.1}])

    def step(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        module(torch.ones(3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    ours, optimizer = made(0)
    step(ours, optimizer)
    tensors, plain = split_optimizers([optimizer_state(ours, optimizer)])
    assert tensors.keys() == {f"optimizers.0.{name}.exp_avg{end}" for name in ("weight", "bias") for end in ("", "_sq")}
    assert plain[0]["state"]["weight"] == {"step": torch.tensor(1.0)}
    write_tensors(tmp_path, {**model_tensors(ours), **tensors}, None)
    step(ours, optimizer)
    again, other = made(1)
    load_model(tmp_path, again)
    load_optimizers(tmp_path, again, [other], plain)
    step(again, other)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in ours.state_dict().items())
    swapped = torch.optim.AdamW([again.weight, again.bias])
    with pytest.raises(CheckpointError, match=r"optimizer 0 has other groups .* \(1 groups instead of 2\)"):
        load_optimizers(tmp_path, again, [swapped], plain)
    with pytest.raises(CheckpointError, match=r"bias is \(2,\) in the checkpoint and \(4,\) in the model and 1 more"):
        load_model(tmp_path, torch.nn.Linear(3, 4))
