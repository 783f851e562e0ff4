"""A strategy is one file and one line of the table: nowhere else is asked which strategy it is."""

import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from lightning.pytorch import strategies

import framework
from framework.core.errors import ConfigError
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.checkpoint.layout import FOLDER, list_checkpoints
from framework.training.checkpoint.read import find_checkpoint, read_tensors
from framework.training.checkpoint.strategy import DCPCheckpoints
from framework.training.strategies.backend import Backend, Devices, backend_of_strategy, named_backend
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import STRATEGIES, StrategyConfig, StrategyName
from framework.training.strategies.placement import Placement

ROOT = Path(framework.__file__).parent
ONE_FILE_EACH = {
    # What is looked for, and the files of `training/strategies` that may have it.
    r"ds_(tensor|status|shape|numel|active_sub_modules)|GatheredParameters|get_global_grad_norm": {
        "deepspeed.py",
        "deepspeed_files.py",
    },
    r"\bimport deepspeed|\bfrom deepspeed|\bDeepSpeedStrategy\b|\bDeepSpeedPrecision\b": {"deepspeed.py"},
    r"\bDTensor\b|\bFSDPModule\b|fully_shard\(|_local_tensor|full_tensor\(|\bModelParallelStrategy\b": {"fsdp2.py"},
}
MAY_NAME_THEM = {"testing/processes/deepspeed_cpu.py", "core/compat/lightning_compat.py"}
"""Tests' own strategy, and the bases that Lightning's private parts are opened in."""
ASKS_WHICH = (
    r"""(strategy|chosen|backend)(\.name|_name)? *[!=]= *["'](ddp|fsdp2|deepspeed|single)["']""",
    r"isinstance\([\w.]*strategy, ",
    r"\bif [^#\n]*\bdeepspeed\b",
)


def code_of(path: Path) -> str:
    """Without docstrings and comments, which may say why."""
    text = re.sub(r'"{3}.*?"{3}', '""', path.read_text(), flags=re.DOTALL)
    return re.sub(r"#.*", "", text)


FILES = {path.relative_to(ROOT).as_posix(): code_of(path) for path in sorted(ROOT.rglob("*.py"))}


@pytest.mark.parametrize("pattern", ONE_FILE_EACH)
def test_internals_of_a_strategy_stand_in_its_file(pattern: str):
    allowed = {f"training/strategies/{name}" for name in ONE_FILE_EACH[pattern]} | MAY_NAME_THEM
    found = {name for name, code in FILES.items() if re.search(pattern, code)} - allowed
    assert found == set()
    assert any(re.search(pattern, FILES[name]) for name in allowed)


@pytest.mark.parametrize("pattern", ASKS_WHICH)
def test_nothing_asks_which_strategy_it_is(pattern: str):
    inside = ("training/strategies/", "training/checkpoint/strategy.py")
    found = [
        f"{name}: {line.strip()}"
        for name, code in FILES.items()
        if not name.startswith(inside)
        for line in code.splitlines()
        if re.search(pattern, line)
    ]
    assert found == []


def test_the_table_is_what_recipes_may_name():
    assert tuple(STRATEGIES) == get_args(StrategyName)
    assert {named_backend(name).title for name in STRATEGIES} == {"DDP", "FSDP2", "DeepSpeed"}
    with pytest.raises(ConfigError, match=r"strategy\.name slowly: use one of: ddp, fsdp2, deepspeed"):
        named_backend("slowly")


# All that a new strategy needs besides its line in the table.


class Toy(Backend):
    title = "Toy"

    def make(self, config: StrategyConfig, devices: Devices) -> strategies.Strategy:
        return ToyStrategy(config, devices.of_node[0])


class ToyStrategy(DCPCheckpoints, strategies.SingleDeviceStrategy):
    backend = Toy()

    def __init__(self, config: StrategyConfig, device: torch.device) -> None:
        super().__init__(device=device)
        self.parallelism = config

    def placement(self) -> Placement:
        return Placement.of(self.parallelism, self.root_device)


def fit(run_dir: Path, steps: int) -> None:
    config = StrategyConfig()
    # A line of the table and of the names that recipes may have, which are checked here too.
    object.__setattr__(config, "name", "toy")
    strategy = make_strategy(config, accelerator="cpu", devices=1)
    assert backend_of_strategy(strategy).title == "Toy"
    strategy.start_anew = True  # type: ignore[attr-defined]
    trainer = quiet_trainer(
        run_dir,
        strategy=strategy,
        devices=1,
        max_steps=steps,
        enable_checkpointing=True,
        callbacks=[Checkpoints(every_n_steps=1)],
    )
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(steps)]
    trainer.fit(tiny_module(tiny_config()), datamodule=Batches(batches), ckpt_path=run_dir, weights_only=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_a_strategy_is_added_by_its_file_and_a_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(STRATEGIES, "toy", f"{__name__}:Toy")
    fit(tmp_path, 1)
    fit(tmp_path, 2)
    assert [path.name for path in list_checkpoints(tmp_path / FOLDER)] == ["step=00000001", "step=00000002"]
    assert len(read_tensors(find_checkpoint(tmp_path), "model.")) > 10
