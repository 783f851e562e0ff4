"""Between two logs nothing in the training loop waits for the device; counted on a GPU, or on one that is pretended."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from framework.bench.gpu.session import Session
from framework.bench.gpu.shapes import TINY
from framework.bench.gpu.synchronisations import counted_waits
from framework.bench.gpu.waits import WaitsOfSteps, train_with_callbacks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


class Reads(Callback):
    """Reads a number of the device in every step."""

    def on_train_batch_end(self, trainer: Trainer, pl_module, *_) -> None:
        next(pl_module.parameters()).sum().item()


@pytest.mark.parametrize(("extra", "least", "most"), [(None, 0, 0), (Reads(), 1, 1)])
def test_nothing_waits_between_two_logs(tmp_path: Path, extra, least: int, most: int):
    session = Session(part="waits", folder=tmp_path, rehearse=True, seconds=100.0)
    with counted_waits() as count:
        noted = WaitsOfSteps(count)
        run = {"size": 2, "steps": 9, "log_every": 3}
        train_with_callbacks(session, TINY, tmp_path, extra=[noted, *([extra] if extra else [])], **run)
    # The first steps make buffers.
    steps = dict(enumerate(noted.steps(), start=1))
    counts = {number: waits.total() for number, waits in steps.items() if number > 3}
    between = [count for number, count in counts.items() if number % 3]
    assert least <= min(between), steps
    assert max(between) <= most, steps
    assert min(count for number, count in counts.items() if number % 3 == 0) > 0, "a log reads its metrics"
