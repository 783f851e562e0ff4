"""DeepSpeed's files, made by hand: whose they are, and whole tensors out of the parts of two ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from framework.core.errors import CheckpointError
from framework.training.strategies.deepspeed_files import (
    TAG,
    DeepSpeedFiles,
    files_of,
    fill_module,
    fill_partition,
    is_partitioned,
    read_deepspeed,
)

WHOLE = {
    "model.table": torch.tensor([9.0]),
    "model.frozen": torch.tensor([6.0, 7.0, 8.0]),
    "model.weight": torch.tensor([[0.0], [1.0], [2.0]]),
    "model.bias": torch.tensor([3.0, 4.0]),
    "ema.gate": torch.tensor([5.0]),
}


def save_of_stage_3(checkpoint: Path) -> None:
    """Two ranks: every parameter is cut into two equal parts, the last one padded with a zero where it is odd."""
    folder = checkpoint / TAG
    folder.mkdir(parents=True)
    parts: list[dict[str, Any]] = [
        {"frozen": [6.0, 7.0], "groups": [[0.0, 1.0, 3.0], [5.0]]},
        {"frozen": [8.0, 0.0], "groups": [[2.0, 0.0, 4.0], [0.0]]},
    ]
    shapes = [{"model.weight": torch.Size([3, 1]), "model.bias": torch.Size([2])}, {"ema.gate": torch.Size([1])}]
    for rank, part in enumerate(parts):
        model = {
            "module": {"model.table": torch.tensor([9.0])},
            "buffer_names": ["model.table"],
            "param_shapes": shapes,
            "frozen_param_shapes": {"model.frozen": torch.Size([3])},
            "frozen_param_fragments": {"model.frozen": torch.tensor(part["frozen"])},
        }
        groups = [torch.tensor(group) for group in part["groups"]]
        torch.save(model, folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        states = {"optimizer_state_dict": {"fp32_flat_groups": groups}}
        torch.save(states, folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")


def save_of_stage_2(checkpoint: Path) -> None:
    (checkpoint / TAG).mkdir(parents=True)
    torch.save({"module": WHOLE}, checkpoint / TAG / "mp_rank_00_model_states.pt")


@pytest.mark.parametrize("save", [save_of_stage_2, save_of_stage_3])
def test_whole_tensors_of_any_stage(tmp_path: Path, save: Any):
    save(tmp_path)
    files = DeepSpeedFiles(tmp_path)
    assert sorted(files.names()) == sorted(WHOLE)
    assert all(torch.equal(files.tensor(name), tensor) for name, tensor in WHOLE.items())
    [(name, found)] = read_deepspeed(tmp_path, "ema.").items()
    assert name == "ema.gate"
    assert found.tolist() == [5]


def test_no_files(tmp_path: Path):
    with pytest.raises(CheckpointError, match="checkpoint has no model states: give a checkpoint that `fit` made"):
        DeepSpeedFiles(tmp_path)


def test_whose_files_they_are(tmp_path: Path):
    save_of_stage_3(tmp_path)
    (tmp_path / "latest").write_text(TAG)
    of_ranks = [[path.relative_to(tmp_path).as_posix() for path in files_of(tmp_path, rank)] for rank in range(3)]
    names = [
        [f"{TAG}/zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt" for kind in ("model", "optim")] for rank in (0, 1)
    ]
    # What belongs to no rank is the first one's.
    assert of_ranks == [[*names[0], "latest"], names[1], []]


def partitioned(values: list[float], part: list[float]) -> nn.Parameter:
    """A parameter as ZeRO-3 leaves it: `values` are there while it is gathered, and `part` is the rank's."""
    parameter = nn.Parameter(torch.tensor(values))
    parameter.ds_tensor = torch.tensor(part)
    for name in ("ds_shape", "ds_numel", "ds_status", "ds_active_sub_modules"):
        setattr(parameter, name, None)
    parameter.all_gather = parameter.partition = print
    return parameter


@pytest.mark.parametrize(("rank", "expected"), [(0, [0, 1]), (1, [2, -1])])
def test_a_rank_fills_its_part(monkeypatch: pytest.MonkeyPatch, rank: int, expected: list[float]):
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
    parameter, small = partitioned([], [-1.0, -1.0]), partitioned([-1.0, -1.0, -1.0], [-1.0, -1.0])
    assert is_partitioned(parameter)
    assert not is_partitioned(nn.Parameter(torch.ones(1)))
    for each in (parameter, small):
        with torch.no_grad():
            fill_partition(each, torch.tensor([0.0, 1.0, 2.0]))
        assert each.ds_tensor.tolist() == expected, "the padding is left alone"
    assert parameter.numel() == 0
    assert small.tolist() == [0, 1, 2], "a small one is kept whole besides"


def test_a_module_is_filled_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    save_of_stage_3(tmp_path)
    module = nn.Module()
    module.model = nn.Module()
    module.model.weight = nn.Parameter(torch.zeros(3, 1))
    module.model.bias = partitioned([], [0.0])
    module.model.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
    module.model.register_buffer("table", torch.zeros(1))
    module.model.register_buffer("unknown", torch.zeros(1))
    fill_module(module, tmp_path, only_frozen=True)
    assert module.model.frozen.tolist() == [6, 7, 8]
    assert module.model.weight.sum() == 0
    fill_module(module, tmp_path)
    assert module.model.weight.flatten().tolist() == [0, 1, 2]
    assert module.model.bias.ds_tensor.tolist() == [4]
    assert module.model.table.tolist() == [9]
    module.model.more = nn.Parameter(torch.zeros(1))
    with pytest.raises(CheckpointError, match=r"is of another model \(model\.more is only in the model\)"):
        fill_module(module, tmp_path)
