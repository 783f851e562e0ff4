"""The generators go on where the checkpoint left them."""

import io
import random
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from framework.testing.models import quiet_trainer
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.random_state import RandomState, derived_seed, random_state, set_random_state


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), *torch.randn(2).tolist()]  # noqa: NPY002


def test_a_state_comes_back_through_a_file_without_code():
    # One Gaussian number each: the generators of Python and NumPy keep its twin for the next call.
    seed_everything(3, verbose=False)
    random.gauss(0, 1)
    np.random.randn()  # noqa: NPY002
    file = io.BytesIO()
    torch.save(random_state(), file)
    expected = [draw() for _ in range(3)]
    seed_everything(4, verbose=False)
    assert draw() != expected[0]
    file.seek(0)
    set_random_state(torch.load(file, weights_only=True))
    assert [draw() for _ in range(3)] == expected


class Draws(LightningModule):
    """Draws from the generators at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.drawn: list[list[float]] = []

    def setup(self, stage: str) -> None:
        draw()

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        # Not Python's generator: the run-time checks of the annotations draw from it.
        self.drawn.append(draw()[2:])
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(run_dir: Path, *, seed: int, resume: Path | None = None) -> list[list[float]]:
    seed_everything(seed, verbose=False)
    module = Draws()
    trainer = quiet_trainer(
        run_dir,
        callbacks=[RandomState(), Checkpoints(every_n_steps=2, keep_last=10)],
        enable_checkpointing=True,
        max_epochs=2,
    )
    # A generator of its own: a loader draws a number whenever it is iterated.
    loader = DataLoader([torch.ones(1)] * 4, batch_size=None, generator=torch.Generator())
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    return module.drawn


def test_a_resumed_run_draws_what_the_uninterrupted_one_drew(tmp_path: Path):
    whole = fit(tmp_path / "whole", seed=1)
    assert len(whole) == 8
    # At the border of the two epochs.
    rest = fit(tmp_path / "rest", seed=2, resume=tmp_path / "whole" / "checkpoints" / "step=00000004")
    assert rest == whole[4:]


def test_another_number_of_processes_is_seeded_by_all_the_states(tmp_path: Path):
    seed_everything(3, verbose=False)
    first = random_state()
    second = {**first, "torch": torch.Generator().manual_seed(1).get_state()}
    seeds = [derived_seed([first, second], rank, 3) for rank in range(3)]
    assert len(set(seeds)) == 3
    assert seeds == [derived_seed([first, second], rank, 3) for rank in range(3)]
    assert derived_seed([second, first], 0, 3) != seeds[0]
    assert derived_seed([first, second], 0, 1) != seeds[0]
    callback = RandomState()
    drawn = []
    for seed in (1, 2):
        seed_everything(seed, verbose=False)
        callback.load_state_dict({"ranks": [first, second]})
        callback.on_train_batch_start(quiet_trainer(tmp_path), Draws(), None, 0)
        # Not Python's generator: the run-time checks of the annotations draw from it.
        drawn.append(draw()[2:])
    assert drawn[0] == drawn[1]
