"""GBC on the device: a training with soft prompts, gates and adapters, and the attribution of errors."""

import importlib.util
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from framework.bench.gpu.first_light import make_trainer
from framework.bench.gpu.session import Session
from framework.data.loading.batch import EpisodeBatch
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.options import (
    AttributionOptions,
    ConnectionOptions,
    CounterfactualEditOptions,
    GradientOptions,
)
from framework.gbc.environments.microworld.faults import plant
from framework.gbc.environments.microworld.files import LOSS
from framework.gbc.environments.microworld.system import MODEL, draw_system
from framework.gbc.environments.microworld.tasks import answer_loss, make_tasks
from framework.gbc.environments.microworld.world import load_model
from framework.gbc.execution.runner import RunOptions, Task, run_graph
from framework.gbc.graph.spec import save_graph
from framework.gbc.language_models.lora import AdapterConfig
from framework.gbc.training.module import GBCModule
from framework.gbc.training.parameters import SoftConfig
from framework.gbc.training.targets import expected_slots
from framework.training.strategies.config import StrategyConfig, StrategyName

_TARGET = f"{expected_slots.__module__}:{expected_slots.__qualname__}"


class Episodes(Dataset[EpisodeBatch]):
    """Tasks in memory, in micro-batches.

    Args:
        tasks: all of them.
        size: tasks of a batch.
    """

    def __init__(self, tasks: list[Task], size: int) -> None:
        self.tasks, self.size = tasks, size

    def __len__(self) -> int:
        return len(self.tasks) // self.size

    def __getitem__(self, number: int) -> EpisodeBatch:
        if number >= len(self):
            raise IndexError(number)
        numbers = torch.arange(number * self.size, (number + 1) * self.size)
        return EpisodeBatch(episodes=tuple(self.tasks[index] for index in numbers), indices=numbers, epoch=0)


class EpisodeData(LightningDataModule):
    """Tasks in memory for a trainer."""

    def __init__(self, episodes: Episodes) -> None:
        super().__init__()
        self.episodes = episodes

    def train_dataloader(self) -> Iterable[EpisodeBatch]:
        return DataLoader(self.episodes, batch_size=None)

    def val_dataloader(self) -> Iterable[EpisodeBatch]:
        # Lightning warns where there is none; `make_trainer` asks for no batch of it.
        return self.train_dataloader()


def train_and_attribute(session: Session) -> None:
    """Two steps of each kind of training, then blame by edits and by gradients."""
    system = draw_system(0)
    fault = plant(system, "swap", seed=0)
    tasks = make_tasks(system, 4 if session.rehearse else 32, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.yaml"
        save_graph(graph, fault.graph)
        names: tuple[StrategyName, ...] = ("ddp", "fsdp2")
        for name in names:
            train = partial(_train, session, Path(folder), graph, tasks, name)
            session.attempt(
                f"soft prompts and gates, {name}", partial(train, SoftConfig(model=MODEL, target=_TARGET, gates=True))
            )
            if importlib.util.find_spec("peft") is None:
                session.note(f"adapters, {name}", skipped="needs the package peft")
                continue
            soft = SoftConfig(model=MODEL, target=_TARGET, num_tokens=0, adapters=AdapterConfig(rank=2))
            session.attempt(f"adapters, {name}", partial(train, soft))
    model = load_model(device=str(session.device))
    traces = [trace for trace in run_graph(fault.graph, {MODEL: model}, tasks) if trace.failure is None]
    losses = [answer_loss(trace) for trace in traces]
    gradients = ConnectionOptions(gradients=GradientOptions(scalar="finegrained"))
    ways = {
        "attribute by edits": AttributionOptions(edits=CounterfactualEditOptions()),
        "attribute by gradients": AttributionOptions(edits=None, connections=gradients),
    }
    for name, options in ways.items():

        def blame(options: AttributionOptions = options) -> dict[str, object]:
            started = session.now()
            found = attribute(traces, fault.graph, {MODEL: model}, losses, options)
            return {"traces": len(found), "seconds": session.now() - started}

        session.attempt(name, blame)


def _train(
    session: Session, folder: Path, graph: Path, tasks: list[Task], strategy: StrategyName, soft: SoftConfig
) -> dict[str, object]:
    shipped = load_model().config.path
    module = GBCModule(
        graph=str(graph),
        models={MODEL: {"path": shipped}},
        loss=LOSS,
        run=RunOptions(on_empty="keep"),
        soft=soft,
    )
    trainer = make_trainer(
        session, folder, StrategyConfig(name=strategy), max_steps=2, precision="32-true", inference_mode=False
    )
    started = session.now()
    trainer.fit(module, datamodule=EpisodeData(Episodes(tasks, len(tasks) // 2)))
    loss = trainer.callback_metrics["loss/target_nats_per_token"].item()
    return {"steps": trainer.global_step, "seconds": session.now() - started, "nats_per_token": loss}
