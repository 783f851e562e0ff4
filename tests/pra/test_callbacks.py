"""The grid of samples: when, of what, and always the same seeds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from framework.core.errors import ConfigError
from framework.evaluation.grid import save_grid
from framework.pra.callbacks import SampleGridConfig
from framework.pra.generate import generate
from framework.pra.module import PRAModule
from framework.pra.sampling import SamplerConfig
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module

SAMPLER = SamplerConfig(steps=2)


def fit(run_dir: Path, grid: dict[str, Any], *, batches: int = 6, rate: float = 1e-3, **options: Any) -> PRAModule:
    torch.manual_seed(0)
    config = tiny_config(num_classes=options.pop("num_classes", 3))
    module = tiny_module(config, grid=SampleGridConfig(**{"sampler": SAMPLER, **grid}))
    data = Batches([tiny_batch(config, 2, seed=seed) for seed in range(batches)])
    quiet_trainer(run_dir, max_epochs=1, **options).fit(module, datamodule=data)
    return module


def pictures(run_dir: Path) -> list[str]:
    return sorted(file.name for file in (run_dir / "samples").glob("*"))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_picture_every_n_steps(tmp_path: Path, accumulate: int):
    fit(tmp_path, {"every_n_steps": 2, "rows": 1}, batches=5 * accumulate, accumulate_grad_batches=accumulate)
    assert pictures(tmp_path) == ["step=00000002.png", "step=00000004.png"]


@pytest.mark.slow
def test_no_picture(tmp_path: Path):
    fit(tmp_path, {"every_n_steps": 0})
    assert pictures(tmp_path) == []


@pytest.mark.slow
def test_the_picture_shows_the_averaged_weights_with_a_class_in_each_column(tmp_path: Path):
    module = fit(tmp_path, {"every_n_steps": 6, "rows": 2, "seed": 4})
    images = torch.cat(list(generate(module.ema, [0, 1, 2, 0, 1, 2], seed=4, sampler=SAMPLER)))
    save_grid(tmp_path / "expected.png", images, columns=3, headings=["0", "1", "2"])
    made = pixels(tmp_path / "samples" / "step=00000006.png")
    assert np.array_equal(made, pixels(tmp_path / "expected.png"))
    assert made.shape == (16 + 2 * 68, 3 * 68)


@pytest.mark.slow
def test_chosen_classes(tmp_path: Path):
    module = fit(tmp_path, {"every_n_steps": 6, "rows": 1, "classes": [2, 0]})
    images = torch.cat(list(generate(module.ema, [2, 0], seed=0, sampler=SAMPLER)))
    save_grid(tmp_path / "expected.png", images, columns=2, headings=["2", "0"])
    assert np.array_equal(pixels(tmp_path / "samples" / "step=00000006.png"), pixels(tmp_path / "expected.png"))


@pytest.mark.slow
def test_the_picture_is_made_in_the_precision_of_training(tmp_path: Path):
    module = fit(tmp_path, {"every_n_steps": 6, "rows": 1}, precision="bf16-mixed")
    images = torch.cat(list(generate(module.ema, [0, 1, 2], seed=0, sampler=SAMPLER, precision="bf16")))
    save_grid(tmp_path / "expected.png", images, columns=3, headings=["0", "1", "2"])
    assert np.array_equal(pixels(tmp_path / "samples" / "step=00000006.png"), pixels(tmp_path / "expected.png"))


@pytest.mark.slow
def test_ten_columns_at_most(tmp_path: Path):
    fit(tmp_path, {"every_n_steps": 6, "rows": 1}, num_classes=12)
    assert pixels(tmp_path / "samples" / "step=00000006.png").shape == (16 + 68, 10 * 68)


@pytest.mark.slow
def test_the_same_weights_make_the_same_picture(tmp_path: Path):
    fit(tmp_path / "once", {"every_n_steps": 3})
    fit(tmp_path / "again", {"every_n_steps": 3})
    once, again = (
        [pixels(run / "samples" / f"step=0000000{n}.png") for n in (3, 6)]
        for run in (tmp_path / "once", tmp_path / "again")
    )
    assert np.array_equal(once[0], again[0])
    assert np.array_equal(once[1], again[1])
    assert not np.array_equal(once[0], once[1])


@pytest.mark.slow
def test_the_grid_draws_no_number_from_the_training(tmp_path: Path):
    with_grid, without = fit(tmp_path / "with", {"every_n_steps": 1}), fit(tmp_path / "without", {"every_n_steps": 0})
    for ours, theirs in zip(with_grid.parameters(), without.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_in_lower_precision(tmp_path: Path):
    fit(tmp_path, {"every_n_steps": 6}, precision="bf16-mixed")
    assert pictures(tmp_path) == ["step=00000006.png"]


@pytest.mark.parametrize("changes", [{"every_n_steps": -1}, {"rows": 0}])
def test_grids_that_cannot_be(changes: dict[str, int]):
    with pytest.raises(ConfigError, match=r"grid\.every_n_steps -?\d+, grid\.rows \d+: use 0 or more, 1 or more"):
        SampleGridConfig(**changes)


@pytest.mark.parametrize(
    ("grid", "num_classes", "message"),
    [
        ({"classes": [0, 3]}, 3, "class 3 is out of range: use classes 0 to 2"),
        ({"sampler": SamplerConfig(guidance=1.5)}, 1, "guidance 1.5 for an unconditional model"),
    ],
)
def test_a_grid_that_the_model_cannot_make_is_refused_before_training(grid: dict, num_classes: int, message: str):
    with pytest.raises(ConfigError, match=message):
        tiny_module(tiny_config(num_classes=num_classes), grid=SampleGridConfig(every_n_steps=100, **grid))
