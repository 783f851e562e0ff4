"""PRA-L itself, not a toy: a sharded step at 256x256, saved, exported, sampled. Takes 20 GiB and some minutes."""

import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from framework.cli.export import export
from framework.core.devices import free_bytes
from framework.data.images.transforms import ImageConfig
from framework.data.module import ShardDataModule
from framework.pra.checkpoint import load_pra
from framework.pra.network.config import PRAConfig
from framework.pra.sampling import SamplerConfig, sample
from framework.testing.images import make_image_shards
from framework.testing.models import quiet_trainer
from framework.testing.processes.distributed import run_distributed

pytestmark = pytest.mark.large
RECIPE = Path(__file__).parents[2] / "recipes" / "pra" / "imagenet256_l.yaml"
STRATEGIES: dict[str, dict[str, Any]] = {
    "fsdp2": {"name": "fsdp2", "activation_checkpointing": 1},
    "zero3": {"name": "deepspeed", "activation_checkpointing": 1},
}
NEEDED_GIB = {"fsdp2": 14, "zero3": 21}
"""By both ranks at their peaks; where there is less the kernel kills one of them (SIGKILL), without a message."""


def architecture() -> PRAConfig:
    settings = yaml.safe_load(RECIPE.read_text())["model"]["init_args"]["architecture"]
    return PRAConfig(**{**settings, "num_classes": 2})


def one_step(folder: str, name: str) -> dict[str, Any]:
    from lightning.pytorch import Callback

    from framework.pra.callbacks import SampleGridConfig
    from framework.pra.module import PRAModule
    from framework.training.callbacks.checkpoints import Checkpoints
    from framework.training.strategies.backend import local_part
    from framework.training.strategies.config import DeepSpeedOptions, StrategyConfig
    from framework.training.strategies.fsdp2 import FSDP2Strategy

    if name == "zero3":
        from framework.testing.processes.deepspeed_cpu import CPUDeepSpeedStrategy

        strategy: Any = CPUDeepSpeedStrategy(StrategyConfig(deepspeed=DeepSpeedOptions(stage=3), **STRATEGIES[name]))
        # Its defaults are for GPUs: they would keep all weights gathered for the backward pass.
        strategy.config["zero_optimization"] |= {
            "reduce_bucket_size": 20_000_000,
            "stage3_max_live_parameters": 50_000_000,
            "stage3_max_reuse_distance": 50_000_000,
            "stage3_prefetch_bucket_size": 20_000_000,
            "sub_group_size": 50_000_000,
        }
    else:
        strategy = FSDP2Strategy(StrategyConfig(**STRATEGIES[name]))
    module = PRAModule(architecture=architecture(), grid=SampleGridConfig(every_n_steps=0))
    found: dict[str, Any] = {}

    class Look(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            found["built_gib"] = peak_gib()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            found["loss"] = float(outputs["loss"])
            found["held"] = sum(local_part(p).numel() for p in pl_module.model.parameters())
            found["step_gib"] = peak_gib()

    trainer = quiet_trainer(
        Path(folder) / name,
        strategy=strategy,
        devices=int(os.environ["WORLD_SIZE"]),
        max_steps=1,
        limit_val_batches=0,
        enable_checkpointing=True,
        callbacks=[Look(), Checkpoints(asynchronous=False)],
    )
    data = ShardDataModule(train=f"{folder}/shards", images=ImageConfig(size=256), batch_size=1)
    trainer.fit(module, data)
    return {**found, "saved_gib": peak_gib()}


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@pytest.mark.parametrize("name", STRATEGIES)
def test_pra_l_makes_a_sharded_step_and_is_saved_exported_and_sampled(name: str, tmp_path: Path):
    available = free_bytes(torch.device("cpu"))
    if available is not None and available < NEEDED_GIB[name] * 2**30:
        pytest.skip(f"needs {NEEDED_GIB[name]} GiB of memory, {available / 2**30:.0f} are available")
    make_image_shards(tmp_path, per_class=2, size=256)
    run = run_distributed(one_step, 2, arguments={"folder": str(tmp_path), "name": name}, timeout=1500)
    ranks = [run.results[rank] for rank in range(2)]
    print(json.dumps(ranks))
    config = architecture()
    exported = tmp_path / "pra_l.safetensors"
    export(str(tmp_path / name), str(exported))
    model = load_pra(exported)
    total = sum(p.numel() for p in model.parameters())
    assert sum(rank["held"] for rank in ranks) == pytest.approx(total, rel=0.01)
    assert max(rank["held"] for rank in ranks) == pytest.approx(total / 2, rel=0.02)
    # Whole, the weights, their gradients, two moments and the average are this much.
    assert max(rank["built_gib"] for rank in ranks) < 0.7 * total * 20 / 2**30
    assert all(torch.isfinite(torch.tensor(rank["loss"])) for rank in ranks)
    with torch.no_grad():
        images = sample(model, torch.tensor([0]), [0], SamplerConfig(steps=1))
    assert images.shape == (1, 3, config.image_size, config.image_size)
    assert torch.isfinite(images).all()
