"""Parts of a sampling: which process makes which, what is kept, and what is not mixed."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.run import get_args_parser

from framework.core.errors import ConfigError
from framework.pra.commands.sample_parts import SampleParts, Share, weights_digest


def part(value: int, count: int = 2) -> np.ndarray:
    return np.full((count, 4, 4, 1), value, np.uint8)


def test_parts_in_order_whoever_makes_them(tmp_path: Path):
    out = str(tmp_path / "a.npz")
    for rank in (1, 0):
        parts = SampleParts(out, {"seed": 1}, num_images=5, batch_size=1)
        for number in parts.missing(Share(rank=rank, num_processes=2)):
            parts.write(number, part(number, 1 if number == 4 else 2))
    parts.wait()
    assert parts.read()[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_missing(tmp_path: Path):
    parts = SampleParts(str(tmp_path / "a.npz"), {}, num_images=3, batch_size=1)
    parts.write(1, part(1))
    assert SampleParts(str(tmp_path / "a.npz"), {}, num_images=3, batch_size=1).missing(Share()) == [0, 2]


def test_parts_of_other_settings_are_refused_and_kept(tmp_path: Path):
    out = str(tmp_path / "a.npz")
    SampleParts(out, {"seed": 1, "sampler": {"steps": 25}}, num_images=2, batch_size=1).write(0, part(0))
    with pytest.raises(ConfigError, match=r"parts of other samples \(seed 1, not 2\)") as raised:
        SampleParts(out, {"seed": 2, "sampler": {"steps": 25}}, num_images=2, batch_size=1)
    assert "a.npz.parts" in str(raised.value)
    assert SampleParts(out, {"seed": 1, "sampler": {"steps": 25}}, num_images=2, batch_size=1).missing(Share()) == [1]


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({}, Share()),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Share(rank=1, num_processes=4)),
        (
            {"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "1"},
            Share(rank=2, num_processes=3, local_rank=1),
        ),
        # A job's script is not a step: nobody else shares.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, Share()),
    ],
)
def test_which_process_this_is(environment: dict[str, str], share: Share):
    assert Share.of_environment(environment) == share


def test_a_digest_is_of_values_and_names():
    layer = nn.Linear(2, 2)
    before = weights_digest(layer)
    assert before == weights_digest(layer)
    with torch.no_grad():
        layer.bias[0] += 1e-6
    assert weights_digest(layer) != before


def test_a_gpu_for_each_process_of_a_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    share = Share(rank=6, num_processes=8, local_rank=2)
    assert share.device(torch.device("cuda")) == torch.device("cuda:2")
    assert share.device(torch.device("cuda:1")) == torch.device("cuda:1")
    assert share.device(torch.device("cpu")) == torch.device("cpu")
    assert Share().device(torch.device("cuda")) == torch.device("cuda")


def test_the_documented_command_of_several_processes():
    text = " ".join((Path(__file__).parents[3] / "docs/recipes.md").read_text().split())
    (command,) = re.findall(r"`torchrun ([^`]*framework sample) \.\.\.`", text)
    given = [*command.split(), "RUN", "OUT.npz", "--num", "50000"]
    # Alone, torchrun takes --num for an option of its own.
    options = get_args_parser().parse_args(given)
    assert (options.nproc_per_node, options.no_python, options.training_script) == ("8", True, "framework")
    assert options.training_script_args == ["sample", "RUN", "OUT.npz", "--num", "50000"]


def test_the_last_part_has_the_rest(tmp_path: Path):
    parts = SampleParts(str(tmp_path / "a.npz"), {}, num_images=7, batch_size=3)
    assert [list(parts.numbers(part)) for part in parts.missing(Share())] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [parts.size(part) for part in range(parts.num)] == [3, 3, 1]
