"""Training runs of agents for tests: a module on a tiny world, and a trainer as `framework fit` makes it."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import Strategy

from framework.data.module import ShardDataModule
from framework.gbc.execution.runner import RunOptions
from framework.gbc.language_models.lora import AdapterConfig
from framework.gbc.training.module import GBCModule
from framework.gbc.training.parameters import SoftConfig
from framework.gbc.training.prompt_steps import SearchConfig
from framework.testing.models import quiet_trainer
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.callbacks.finite import FiniteGuard
from framework.training.callbacks.random_state import RandomState
from framework.training.callbacks.throughput import Throughput
from framework.training.optimizer import OptimizerConfig
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import DeepSpeedOptions, StrategyConfig

OPTIMIZER = OptimizerConfig(learning_rate=0.05, weight_decay=0.0, warmup_steps=0)
SOFT = SoftConfig(model="m", num_tokens=2, gates=True)
ALL = replace(SOFT, adapters=AdapterConfig(rank=2, targets=("q_proj",)))
ONE_LAYER = SoftConfig(
    model="m", num_tokens=0, adapters=AdapterConfig(rank=2, targets=("layers.1.self_attn.q_proj",)), agents=("last",)
)


def make_module(world: Path, **options: Any) -> GBCModule:
    """The module on a tiny world, with other settings where they are given."""
    options = {
        "graph": str(world / "graph.yaml"),
        "models": {"m": {"path": str(world / "model")}},
        "loss": "framework.testing.agents:length_loss",
        "run": RunOptions(on_empty="keep"),
        **options,
    }
    return GBCModule(**options)


def strategy_of(name: str, devices: int, accelerator: str = "cpu") -> Strategy:
    """A strategy by its name.

    Args:
        name: ours; `zero3` is DeepSpeed's on the CPU.
        devices: processes.
        accelerator: the trainer's.
    """
    if name != "zero3":
        config = StrategyConfig(name=name)  # type: ignore[arg-type]
        return make_strategy(config, accelerator=accelerator, devices=devices)
    from framework.testing.processes.deepspeed_cpu import CPUDeepSpeedStrategy

    warnings.filterwarnings("ignore")
    return CPUDeepSpeedStrategy(StrategyConfig(name="deepspeed", deepspeed=DeepSpeedOptions(stage=3)))


def fit(world: Path, run_dir: Path, module: GBCModule, *, steps: int, devices: int = 1, **options: Any) -> Trainer:
    """Trains a module on the episodes of a tiny world, with a log and a checkpoint after every step.

    Args:
        world: folder of the shards.
        run_dir: of the run; training goes on from its newest checkpoint.
        module: what is trained.
        steps: optimizer steps in all.
        devices: processes.
        **options: `strategy`, `callbacks`, `batch_size`, `validation`, `save_every_n_steps`, and the trainer's.
    """
    seed_everything(0, verbose=False)
    strategy = strategy_of(options.pop("strategy", "ddp"), devices, options.get("accelerator", "cpu"))
    strategy.start_anew = True  # type: ignore[attr-defined]
    more, every = options.pop("callbacks", []), options.pop("save_every_n_steps", 1)
    batch_size = options.pop("batch_size", 4)
    validation = options.pop("validation", str(world / "held_out"))
    callbacks = [
        Throughput("task"),
        FiniteGuard(),
        RandomState(),
        *more,
        Checkpoints(every_n_steps=every, keep_last=100),
    ]
    trainer = quiet_trainer(
        run_dir,
        max_steps=steps,
        strategy=strategy,
        devices=devices,
        logger=CSVLogger(run_dir, name="metrics", flush_logs_every_n_steps=1),
        enable_checkpointing=True,
        log_every_n_steps=options.pop("log_every_n_steps", 1),
        gradient_clip_val=1.0,
        val_check_interval=options.pop("val_check_interval", 100),
        inference_mode=False,
        callbacks=callbacks,
        **options,
    )
    data = ShardDataModule(
        train=str(world / "train"),
        validation=validation,
        kind="episodes",
        batch_size=batch_size,
    )
    trainer.fit(module, datamodule=data, ckpt_path=run_dir, weights_only=True)
    return trainer


def search_config(world: Path, **options: Any) -> SearchConfig:
    """A search among the candidates of a tiny world."""
    return SearchConfig(candidates=str(world / "candidates.yaml"), num_held_out=5, **options)
