"""Files of weights: what is written comes back, in one file or in several, and only into the model that it is of."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from framework.core.errors import CheckpointError
from framework.training.weights import WeightFiles, check_shapes, fill_model, index_of, write_weights

TENSORS = {"a": torch.arange(4.0), "b": torch.arange(6.0).reshape(2, 3), "c": torch.tensor([1, 2]), "d": torch.ones(1)}
"""Of 16, 24, 16 and 4 bytes."""


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_one_file(tmp_path: Path):
    out = tmp_path / "x.safetensors"
    assert write_weights(out, TENSORS) == write_weights(out, TENSORS, max_shard_bytes=60) == [out]
    assert [path.name for path in tmp_path.iterdir()] == [out.name], "nothing temporary is left"
    assert same(load_file(out))
    files = WeightFiles.at(out)
    assert same(files.tensors())
    assert files.shapes() == {name: tensor.shape for name, tensor in TENSORS.items()}


def test_several_files_and_their_index(tmp_path: Path):
    out = tmp_path / "x.safetensors"
    *files, index = write_weights(out, TENSORS, max_shard_bytes=20)
    assert index == index_of(out) == tmp_path / "x.safetensors.index.json"
    # 24 bytes are more than the limit and have a file of their own; 16 + 4 are just the limit.
    assert [sorted(load_file(file)) for file in files] == [["a"], ["b"], ["c", "d"]]
    assert [file.name for file in files] == [f"x-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    content = json.loads(index.read_text())
    assert content["metadata"] == {"total_size": 60}
    assert content["weight_map"]["d"] == files[2].name
    found = WeightFiles.at(index)
    assert same(found.tensors())
    assert found.shapes()["b"] == (2, 3)
    files[1].unlink()
    with pytest.raises(CheckpointError, match=r"x\.safetensors\.index\.json cannot be read as safetensors"):
        WeightFiles.at(index)


def test_what_is_not_a_file_of_weights(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        WeightFiles.at(path)
    path.write_bytes(b"no header")
    with pytest.raises(CheckpointError, match="give what `framework export` wrote"):
        WeightFiles.at(path)


def test_a_model_takes_parameters_and_saved_buffers(tmp_path: Path):
    model, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        model.running_mean.fill_(0.5)
    [file] = write_weights(tmp_path / "x.safetensors", model.state_dict())
    other.register_buffer("table", torch.zeros(2), persistent=False)
    fill_model(other, WeightFiles.at(file))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"the weights are of another model \(bias is \(3,\) and not \(4,\)"):
        fill_model(nn.BatchNorm1d(4), WeightFiles.at(file))


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"a": (2,)}, "b is missing"),
        ({"a": (2,), "b": (3,), "c": (1,)}, "c is unknown"),
        ({"a": (2,), "b": (1, 3)}, r"b is \(1, 3\) and not \(3,\)"),
        ({"b": (4,)}, "a is missing and 1 more"),
    ],
)
def test_another_model_is_told_by_the_first_name(theirs: dict[str, tuple[int, ...]], words: str):
    ours = {"a": torch.Size([2]), "b": torch.Size([3])}
    check_shapes(ours, dict(ours), "the file is")
    with pytest.raises(CheckpointError, match=rf"the file is of another model \({words}\): use the model's own"):
        check_shapes(ours, {name: torch.Size(shape) for name, shape in theirs.items()}, "the file is")
