"""Saves, random numbers and histograms on a GPU; skipped without one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.constants import default_pg_timeout

from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.testing.processes.gpus import run_on_gpus
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.histograms import count
from framework.training.callbacks.random_state import RandomState, random_state
from framework.training.checkpoint.layout import FOLDER, list_checkpoints
from framework.training.checkpoint.read import read_tensors
from framework.training.checkpoint.staging import Staging
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig
from framework.training.strategies.fsdp2 import FSDP2Strategy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def fit(folder: Path, *, devices: int = 1, strategy: dict[str, Any] | None = None, **options: Any) -> Any:
    config = tiny_config()
    module = tiny_module(config)
    chosen = make_strategy(StrategyConfig(**strategy or {}), accelerator="gpu", devices=devices)
    chosen.start_anew = True  # type: ignore[attr-defined]
    options = {"accelerator": "gpu", "devices": devices, "strategy": chosen, "max_steps": 4, **options}
    batches = [tiny_batch(config, 8, seed=step) for step in range(4)]
    trainer = quiet_trainer(folder, **options)
    trainer.fit(module, datamodule=Batches(batches), ckpt_path=folder, weights_only=True)
    return module


def test_asynchronous_saves_hold_what_the_gpu_held(tmp_path: Path):
    saves = Checkpoints(every_n_steps=1, keep_last=100, asynchronous=True)
    module = fit(tmp_path, callbacks=[saves, RandomState()], enable_checkpointing=True)
    checkpoints = list_checkpoints(tmp_path / FOLDER)
    assert len(checkpoints) == 4
    tensors = read_tensors(checkpoints[-1], "")
    for name, parameter in module.named_parameters():
        assert torch.equal(tensors[name], parameter.cpu()), name
    weight = next(name for name, _ in module.named_parameters())
    assert not torch.equal(read_tensors(checkpoints[0], "")[weight], tensors[weight])


def test_copies_are_page_locked():
    (copy,) = Staging().copy({"weight": torch.ones(3, device="cuda")}).values()
    assert copy.device.type == "cpu"
    assert copy.is_pinned()
    assert copy.tolist() == [1.0] * 3


def test_the_state_of_the_gpus_generator_is_saved():
    torch.zeros(1, device="cuda")
    assert random_state()["cuda"] is not None


def test_histograms_of_offloaded_values():
    parts = {"weights/head": [torch.tensor([0.0, 1.0]), torch.tensor([2.0], device="cuda")]}
    counts, edges = count(parts, torch.device("cuda"))["weights/head"]
    assert sum(counts) == 3
    assert (edges[0], edges[-1]) == (0.0, 2.0)


STRATEGIES: dict[str, dict[str, dict[str, Any]]] = {
    "NCCL alone": {
        "ddp": {},
        "fsdp2": {"name": "fsdp2"},
        "hsdp": {"name": "fsdp2", "fsdp2": {"replicate": 2}},
    },
    "with gloo": {
        "offload": {"name": "fsdp2", "fsdp2": {"cpu_offload": True}},
        "hsdp, offload": {"name": "fsdp2", "fsdp2": {"replicate": 2, "cpu_offload": True}},
    },
}
"""By the backends of the process group, which is made once in a process."""
TIMEOUTS = {"ddp": 0, "fsdp2": 1, "hsdp": 2, "offload": 2, "hsdp, offload": 4}
"""Of each strategy's mesh, as many as it has groups and they have devices."""


class Timeouts(Callback):
    """Of every process group of a mesh, by its devices."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        strategy = trainer.strategy
        self.seconds: list[float] = []
        if isinstance(strategy, FSDP2Strategy):
            for group in strategy.mesh.get_all_groups():
                backends = [group._get_backend(device) for device in group._device_types]
                self.seconds += [backend.options._timeout.total_seconds() for backend in backends]


def train_on_two(folder: str, backends: str) -> dict[str, float]:
    from framework.training.strategies.config import FSDP2Options
    from tests.training.callbacks.test_histograms import Histograms, Kept

    sums = {}
    for case, options in STRATEGIES[backends].items():
        given = {**options, "fsdp2": FSDP2Options(**options.get("fsdp2", {}))}
        saves = Checkpoints(every_n_steps=2, asynchronous=True)
        kept = Kept()
        timeouts = Timeouts()
        callbacks = [saves, Histograms(every_n_steps=2), RandomState(), timeouts]
        extra = {"callbacks": callbacks, "logger": [kept], "enable_checkpointing": True}
        module = fit(Path(folder) / case, devices=2, strategy=given, **extra)
        tensors = read_tensors(list_checkpoints(Path(folder) / case / FOLDER)[-1], "")
        sums[case] = sum(tensors[name].double().sum().item() for name, _ in module.named_parameters())
        # Those of Lightning's default group, also where torch gives NCCL 10 minutes.
        assert timeouts.seconds == [default_pg_timeout.total_seconds()] * len(timeouts.seconds), case
        assert len(timeouts.seconds) == TIMEOUTS[case], case
        if torch.distributed.get_rank() == 0:
            assert any(name.startswith("gradients/") for _, found in kept.seen for name in found), case
    return sums


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_every_strategy_trains_saves_and_shows_on_two_gpus(tmp_path: Path):
    sums: dict[str, float] = {}
    for backends in STRATEGIES:
        sums |= run_on_gpus(train_on_two, 2, folder=str(tmp_path), backends=backends)[0]
    assert sums.keys() == TIMEOUTS.keys()
    for case, value in sums.items():
        assert value == pytest.approx(sums["ddp"], rel=1e-3), case
