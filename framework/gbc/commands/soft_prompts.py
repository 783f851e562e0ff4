"""`framework optimize --optimizer soft_prompt`: soft prompts of agents, trained as `framework fit` does."""

import json
import logging
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.core.serialization import JsonDict
from framework.data.convert.jsonl import write_jsonl_shards
from framework.data.module import ShardDataModule
from framework.gbc.commands.soft_prompt_options import SoftPromptOptions
from framework.gbc.execution.loading import read_model_configs
from framework.gbc.execution.runner import Task
from framework.gbc.graph.yaml_config import read_yaml
from framework.gbc.language_models.local import LocalModelConfig
from framework.gbc.training.best import BEST, SOFT_PROMPTS, read_best, validation_loss
from framework.gbc.training.failure_limit import FailureConfig
from framework.gbc.training.module import GBCModule
from framework.gbc.training.parameters import SoftConfig
from framework.gbc.training.prompt_tracking import TrackingConfig
from framework.gbc.training.setup import target_of
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.random_state import RandomState
from framework.training.checkpoint.layout import FOLDER, list_checkpoints, step_of
from framework.training.display.progress import StepProgressBar
from framework.training.optimizer import OptimizerConfig
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import StrategyConfig

_LOSS = "loss/target_nats_per_token"


@dataclass(frozen=True, kw_only=True)
class SoftPromptResult:
    """What a training of soft prompts came to.

    Attributes:
        losses: training loss of each step, in nats per token of the right outputs.
        best_loss: the least held-out loss.
        file: the soft prompts that have it; None where none were better than no soft prompts.
    """

    losses: tuple[float, ...]
    best_loss: float
    file: Path | None


@dataclass(frozen=True, kw_only=True)
class SoftPromptInputs:
    """What soft prompts are trained on.

    Attributes:
        graph: YAML file of the graph.
        models: YAML file of the models, or its content.
        model: by its name there, the local model whose agents are trained.
        loss: of a run, for the held-out tasks, as `load_loss` reads it.
        target: of a task its right output, as `target_of` reads it.
        train, held_out: tasks.
    """

    graph: str
    models: str | JsonDict
    model: str
    loss: str
    target: str
    train: Sequence[Task]
    held_out: Sequence[Task]


class _StepLosses(Callback):
    """The training loss of every step, over all starts; after the last step the held-out tasks are run."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: object, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self.losses.append(float(trainer.callback_metrics[_LOSS]))
        if trainer.global_step >= trainer.max_steps:
            # Lightning validates where it is told to stop, whatever `val_check_interval` is.
            trainer.should_stop = True

    def state_dict(self) -> dict[str, list[float]]:
        return {"losses": list(self.losses)}

    def load_state_dict(self, state_dict: dict[str, list[float]]) -> None:
        self.losses = list(state_dict["losses"])


def steps_done(folder: Path) -> int:
    """Steps that the newest checkpoint of a training has made; 0 without any."""
    checkpoints = list_checkpoints(folder / FOLDER)
    return step_of(checkpoints[-1]) if checkpoints else 0


def best_loss_of(folder: Path) -> float | None:
    """The held-out loss of the best soft prompts so far; None where none were better than no soft prompts."""
    best = read_best(folder / BEST)
    return None if best is None else best.loss


def train_soft_prompts(inputs: SoftPromptInputs, options: SoftPromptOptions, folder: Path) -> SoftPromptResult:
    """Trains soft prompts (Lester et al. 2021, arXiv 2104.08691), and keeps those with the least held-out loss.

    They learn by gradient descent on the straight-through loss through the whole graph. A training goes on from its
    newest checkpoint as if never interrupted.

    Args:
        inputs: graph, models and tasks.
        options: how.
        folder: of the training: gets checkpoints and the best soft prompts.

    Raises:
        ConfigError: no tasks, no such local model, or a folder of something else.
        DataError: a training task without its right output.
    """
    train, held_out = inputs.train, inputs.held_out
    if not train or not held_out:
        raise ConfigError(f"{len(train)} training tasks, {len(held_out)} held out", hint="give some of both")
    if (folder / "state.pt").exists():
        raise ConfigError(f"{folder} is a training of an earlier version", hint="use another --out")
    target = target_of(inputs.target, hint="give --target, the field with the right output")
    for task in train:
        target(task)
    device = torch.device(_config_of(inputs).device)
    module, steps = _module(inputs, options), _StepLosses()
    seed_everything(options.seed, verbose=False)
    with TemporaryDirectory() as shards, _quiet_lightning():
        _write_shards(Path(shards), train=train, held_out=held_out)
        data = ShardDataModule(
            train=str(Path(shards) / "train"),
            validation=str(Path(shards) / "held_out"),
            kind="episodes",
            batch_size=min(options.batch_size, len(train)),
            seed=options.seed,
        )
        if not steps_done(folder):
            shutil.rmtree(folder / BEST, ignore_errors=True)
            # No soft prompts are kept that are not better than none. Measured in the same way: no rounding decides.
            without = _trainer(folder, device, options)
            without.validate(_without_soft_prompts(inputs, options), datamodule=data, verbose=False)
            module.best.loss = validation_loss(without)
        checkpoints = Checkpoints(every_n_steps=options.evaluate_every, asynchronous=False)
        trainer = _trainer(folder, device, options, RandomState(), steps, checkpoints)
        trainer.fit(module, datamodule=data, ckpt_path=folder, weights_only=True)
    best = best_loss_of(folder)
    if best is None:
        assert module.best.loss is not None
        return SoftPromptResult(losses=tuple(steps.losses), best_loss=module.best.loss, file=None)
    return SoftPromptResult(losses=tuple(steps.losses), best_loss=best, file=folder / BEST / SOFT_PROMPTS)


def _config_of(inputs: SoftPromptInputs) -> LocalModelConfig:
    config = read_model_configs(inputs.models).get(inputs.model)
    if not isinstance(config, LocalModelConfig):
        problem = f"{inputs.model!r} is not a local model"
        raise ConfigError(problem, hint="train soft prompts of a model with a `path`")
    return config


def _module(inputs: SoftPromptInputs, options: SoftPromptOptions) -> GBCModule:
    return GBCModule(
        graph=inputs.graph,
        models=inputs.models,
        loss=inputs.loss,
        run=options.run,
        attribute_every_n_steps=0,
        soft=SoftConfig(model=inputs.model, target=inputs.target, num_tokens=options.num_tokens),
        optimizer=OptimizerConfig(
            learning_rate=options.learning_rate, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=0
        ),
        # Runs that failed are left out, however many.
        failures=FailureConfig(max_failed_share=1.0),
        tracking=TrackingConfig(every_n_steps=0),
        seed=options.seed,
    )


def _without_soft_prompts(inputs: SoftPromptInputs, options: SoftPromptOptions) -> GBCModule:
    models = inputs.models if isinstance(inputs.models, dict) else read_yaml(inputs.models)
    plain = {name: value for name, value in models[inputs.model].items() if name != "soft_prompts"}
    return GBCModule(
        graph=inputs.graph,
        models={**models, inputs.model: plain},
        loss=inputs.loss,
        run=options.run,
        attribute_every_n_steps=0,
        seed=options.seed,
    )


def _trainer(folder: Path, device: torch.device, options: SoftPromptOptions, *callbacks: Callback) -> Trainer:
    accelerator, devices = ("cpu", 1) if device.type == "cpu" else (device.type, [device.index or 0])
    strategy = make_strategy(StrategyConfig(), accelerator=accelerator, devices=devices)
    strategy.start_anew = True  # pyright: ignore[reportAttributeAccessIssue]
    return Trainer(
        default_root_dir=folder,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        max_epochs=-1,
        max_steps=options.steps,
        val_check_interval=options.evaluate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,
        logger=False,
        enable_checkpointing=bool(callbacks),
        # Trainings have callbacks, mere validations none.
        enable_progress_bar=bool(callbacks),
        enable_model_summary=False,
        callbacks=[*callbacks, StepProgressBar()] if callbacks else [],
    )


def _write_shards(folder: Path, **tasks_by_name: Sequence[Task]) -> None:
    for name, tasks in tasks_by_name.items():
        lines = folder / f"{name}.jsonl"
        with atomic_write(lines) as stream:
            stream.writelines((json.dumps(dict(task)) + "\n").encode() for task in tasks)
        write_jsonl_shards(lines, folder / name)


@contextmanager
def _quiet_lightning() -> Generator[None]:
    """Without Lightning's lines on devices and on the end of training: the command has its own."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
