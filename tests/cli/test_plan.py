"""What a plan says, against what real processes hold, and as a user reads it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from framework.cli.main import main
from framework.cli.plan import PlanOptions, what_would_fit
from framework.data.loading.batch import ImageBatch
from framework.pra.callbacks import SampleGridConfig
from framework.pra.loss import ObjectiveConfig
from framework.pra.module import PRAModule
from framework.pra.network.config import PRAConfig
from framework.pra.planning.memory import Run, make_plan
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.testing.processes.forked import run_forked
from framework.tracking.devices import GIB
from framework.training.strategies.backend import local_part
from framework.training.strategies.build import make_strategy
from framework.training.strategies.config import FSDP2Options, StrategyConfig

RECIPES = Path(__file__).parents[2] / "recipes/pra"
# Odd sizes, so that shards are uneven.
CONFIG = replace(tiny_config(), width=24, num_classes=6, head_width=20, decoder_width=12)


def run_of(name: Any = "ddp", num_devices: int = 1, **options: Any) -> Run:
    given: dict[str, Any] = {"micro_batch": 2, "precision": "bf16-mixed", **options}
    strategy = StrategyConfig(name=name)
    return Run(architecture=CONFIG, objective=ObjectiveConfig(), strategy=strategy, num_devices=num_devices, **given)


PARTS = ("arithmetic_seconds", "memory_seconds", "link_seconds", "network_seconds")
KINDS = ("parameters", "gradients", "optimizer", "ema", "activations")


class Measured(PRAModule):
    """Notes the bytes that its forward pass saves for the backward pass."""

    saved: int

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        storages: dict[int, Tensor] = {}
        known = {local_part(t).untyped_storage()._cdata for t in [*self.model.parameters(), *self.model.buffers()]}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = super().training_step(batch, batch_idx)
        self.saved = sum(t.untyped_storage().nbytes() for key, t in storages.items() if key not in known)
        return loss


class Holdings(Callback):
    """Bytes that this process holds after the backward pass of the second step."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        def size(tensors: Any) -> int:
            return sum(local_part(t).nbytes for t in tensors)

        model: Any = pl_module.model
        ema: Any = pl_module.ema
        self.found = {
            "parameters": size([*model.parameters(), *model.buffers()]),
            "gradients": size(p.grad for p in model.parameters() if p.grad is not None),
            "optimizer": size(v for state in optimizer.state.values() for v in state.values()),
            "ema": size([*ema.parameters(), *ema.buffers()]),
            "activations": cast(Measured, pl_module).saved,
        }


def hold(run_dir: str, names: list[str], devices: int, trainable: list[str] | None = None) -> dict[str, dict[str, int]]:
    found = {}
    for name in names:
        config = StrategyConfig(name=name)  # type: ignore[arg-type]
        holdings = Holdings()
        trainer = quiet_trainer(
            Path(run_dir),
            callbacks=[holdings],
            max_steps=2,
            precision="bf16-mixed",
            devices=devices,
            strategy=make_strategy(config, accelerator="cpu", devices=devices),
        )
        batches = [tiny_batch(CONFIG, 2, seed=seed) for seed in range(2)]
        module = Measured(architecture=CONFIG, grid=SampleGridConfig(every_n_steps=0))
        # As from a recipe, but that the other parts would start from weights of their own.
        module.trainable = trainable
        trainer.fit(module, datamodule=Batches(batches))
        found[name] = holdings.found
    return found


def expected(run: Run) -> dict[str, int]:
    memory = make_plan(run).memory
    return {name: getattr(memory, name) for name in KINDS}


@pytest.mark.slow
def test_a_single_process_holds_what_was_planned_to_the_byte(tmp_path: Path):
    assert hold(str(tmp_path), ["ddp"], 1)["ddp"] == expected(run_of())


@pytest.mark.slow
def test_ranks_hold_what_was_planned_to_the_byte(tmp_path: Path):
    results = run_forked(hold, 2, run_dir=str(tmp_path), names=["ddp", "fsdp2"], devices=2).results
    for name in ("ddp", "fsdp2"):
        planned = expected(run_of(name, 2))
        assert results[0][name] == planned
        # The first rank holds most.
        assert all(results[1][name][kind] <= planned[kind] for kind in planned)
    assert results[1]["fsdp2"] != results[0]["fsdp2"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["head", "decoder", "encoder"])
def test_a_part_that_learns_alone_holds_what_was_planned_to_the_byte(tmp_path: Path, part: str):
    found = hold(str(tmp_path), ["ddp"], 1, trainable=[part])["ddp"]
    assert found == expected(run_of(trainable=(part,)))
    whole = expected(run_of())
    assert all(found[kind] < whole[kind] for kind in ("gradients", "optimizer", "activations"))


@pytest.mark.slow
def test_ranks_that_train_a_part_hold_what_was_planned_to_the_byte(tmp_path: Path):
    given: dict[str, Any] = {"run_dir": str(tmp_path), "names": ["ddp", "fsdp2"], "devices": 2, "trainable": ["head"]}
    results = run_forked(hold, 2, **given).results
    for name in ("ddp", "fsdp2"):
        assert results[0][name] == expected(run_of(name, 2, trainable=("head",)))


def test_zero_stages_shard_more_and_more():
    plans = []
    for stage in (1, 2, 3):
        run = run_of("deepspeed", 4)
        options = replace(run.strategy.deepspeed, stage=stage)
        plans.append(make_plan(replace(run, strategy=replace(run.strategy, deepspeed=options))).memory)
    whole = expected(run_of())
    assert [p.gradients < whole["gradients"] for p in plans] == [False, True, True]
    assert [p.parameters < whole["parameters"] for p in plans] == [False, False, True]
    # A master copy and two moments, a quarter each.
    assert all(p.optimizer == pytest.approx(3 / 8 * whole["optimizer"], rel=0.05) for p in plans)


def test_sharing_options_count():
    run = run_of("fsdp2", 4, accumulation=2)

    def plan(**options: Any):
        return make_plan(replace(run, strategy=replace(run.strategy, fsdp2=FSDP2Options(**options))))

    plain = plan()
    assert plan(replicate=2).memory.parameters > plain.memory.parameters
    assert plan(cpu_offload=True).memory.peak < plain.memory.peak
    assert plan(cpu_offload=True).memory.host > 0
    assert plan(reshard_after_forward=False).memory.buffers > plain.memory.buffers
    assert plan(accumulation="sharded").memory.buffers < plain.memory.buffers
    assert plan(reshard_after_forward=False).bytes_sent < plain.bytes_sent
    assert plan(param_dtype="bfloat16").bytes_sent < plain.bytes_sent
    assert make_plan(run_of()).bytes_sent == 0
    # A ring of two sends as much as it holds.
    whole = 4 * make_plan(run_of()).num_parameters
    assert make_plan(run_of("ddp", 2)).bytes_sent == whole
    assert make_plan(run_of("ddp", 4)).bytes_sent == 1.5 * whole


@pytest.mark.slow
def test_the_steps_operations_count_every_image():
    plan = make_plan(run_of("ddp", 4, micro_batch=3, accumulation=2))
    assert plan.run.global_batch == 24
    assert plan.flops_per_step == 24 * plan.flops_per_sample


@pytest.mark.slow
def test_what_would_fit_is_found_and_fits():
    run = run_of("ddp", 4, micro_batch=16)
    peak = make_plan(run).memory.peak
    changes = what_would_fit(run, make_plan, peak - 1)
    assert changes[0][0] == "--strategy.activation_checkpointing 2"
    assert all(plan.fits(peak - 1) and plan.run.global_batch == 64 for _, plan in changes)
    least = replace(run, strategy=StrategyConfig(name="fsdp2", activation_checkpointing=1))
    smaller = what_would_fit(run, make_plan, make_plan(least).memory.peak - 1)
    assert "--data.batch_size 8 --trainer.accumulate_grad_batches 2" in smaller[0][0]
    assert smaller[0][1].run.global_batch == 64
    assert what_would_fit(replace(run, micro_batch=1), make_plan, GIB) == []


@pytest.mark.parametrize(
    ("name", "num_devices", "options"),
    [
        # One device shards nothing, but one strategy can offload there.
        ("ddp", 1, "--strategy.name fsdp2 --strategy.fsdp2.cpu_offload true"),
        ("fsdp2", 2, "--strategy.fsdp2.cpu_offload true"),
        ("deepspeed", 2, "--strategy.deepspeed.offload_optimizer true"),
    ],
)
def test_offloading_is_proposed_last(name: Any, num_devices: int, options: str):
    run = run_of(name, num_devices, micro_batch=1)
    least = min(plan.memory.peak for _, plan in what_would_fit(run, make_plan, make_plan(run).memory.peak))
    changes = what_would_fit(run, make_plan, least - 1)
    assert any(change.startswith(options) for change, _ in changes)
    assert all("offload" in change and plan.memory.host and plan.fits(least - 1) for change, plan in changes)


@pytest.mark.slow
def test_the_large_model_trains_on_a_device_of_eight_gib():
    """One image at a time; by all other ways weights, gradients, moments and averages alone are more."""
    recipe = yaml.safe_load((RECIPES / "imagenet256_l.yaml").read_text())["model"]["init_args"]
    architecture = PRAConfig(**recipe["architecture"])
    given: dict[str, Any] = {"architecture": architecture, "objective": ObjectiveConfig(), "num_devices": 1}
    run = Run(strategy=StrategyConfig(), micro_batch=1, precision="bf16-mixed", **given)
    memory = make_plan(run).memory
    assert memory.parameters + memory.gradients + memory.optimizer + memory.ema > 9.8 * GIB
    changes = what_would_fit(run, make_plan, 8 * GIB)
    assert changes[0][0] == "--strategy.name fsdp2 --strategy.fsdp2.cpu_offload true"
    assert all(plan.memory.host > 9.8 * GIB for _, plan in changes)


@pytest.mark.slow
def test_the_command_prints_a_table_or_json(recipe: Path, capsys: pytest.CaptureFixture[str]):
    # No data are opened.
    options = ["--config", str(recipe), "--data.train", "/nowhere", "--nodes", "2", "--devices", "4"]
    main(["plan", *options, "--strategy", "fsdp2", "--device", "H100"])
    table = capsys.readouterr().out
    assert "expected peak" in table
    assert "memory of H100" in table
    assert "8 x 4 x 1 = 32" in table
    assert all(row in table for row in ("of these to other nodes", "best interval of checkpoints", "images per second"))
    main(["plan", *options, "--device", "H100", "--cluster.storage_gb", "0.001", "--json"])
    expected = json.loads(capsys.readouterr().out)["expected"]
    assert expected["step_seconds"] == max(value for name, value in expected.items() if name in PARTS)
    assert expected["interval_seconds"] >= expected["write_seconds"]
    main(["plan", *options, "--data.global_batch", "64", "--trainer.precision", "bf16-mixed", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["num_devices"], found["accumulation"], found["precision"]) == (8, 2, "bf16-mixed")
    assert found["fits"] is None
    main(["plan", *options, "--device", "0.5GiB", "--data.batch_size", "1"])
    assert "more devices or a smaller model" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_tells_how_many_parameters_learn(recipe: Path, capsys: pytest.CaptureFixture[str]):
    main(["plan", "--config", str(recipe), "--json"])
    whole = json.loads(capsys.readouterr().out)
    assert whole["num_trained_parameters"] == whole["num_parameters"]
    options = ["--config", str(recipe), "--model.init_args.trainable", "[head]"]
    main(["plan", *options, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["num_trained_parameters"] < found["num_parameters"] == whole["num_parameters"]
    assert found["memory_bytes"]["gradients"] == 4 * found["num_trained_parameters"]
    assert found["flops_per_image"] < whole["flops_per_image"]
    main(["plan", *options])
    assert "0.0M parameters in training, of which 0.0M learn" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.init_args.trainable", "[tail]"], "trainable ['tail']: name parts of the model: transformer, head"),
        (["--device", "H900"], "use one of A100-40GB"),
        (["--nodes", "0"], "nodes 0"),
        (["--trainer.precision", "16-mixed"], "trainer.precision 16-mixed"),
        (["--strategy", "fsdp2", "--strategy.fsdp2.replicate", "2"], "replicate 2 does not divide 1"),
        (["--data.global_batch", "6"], "global_batch 6 is not a multiple"),
    ],
)
def test_mistakes_are_one_line(recipe: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str):
    with pytest.raises(SystemExit) as stopped:
        main(["plan", "--config", str(recipe), *options])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_sizes_are_read():
    assert PlanOptions(device="48GiB").found_device() == (None, 48 * GIB)
    assert PlanOptions(device="80GB").found_device() == (None, 80 * 10**9)
    assert PlanOptions(device="1000").found_device() == (None, 1000)
    device, memory = PlanOptions(device="h200").found_device()
    assert device is not None
    assert device.memory_bytes == memory


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    "strategy",
    [
        StrategyConfig(),
        StrategyConfig(activation_checkpointing=1),
        StrategyConfig(name="fsdp2", fsdp2=FSDP2Options(cpu_offload=True)),
    ],
    ids=["plain", "recomputed", "offloaded"],
)
def test_the_expected_peak_is_near_the_measured_one_on_a_gpu(tmp_path: Path, strategy: StrategyConfig):
    config = PRAConfig(image_size=128, patch_size=16, num_classes=10, width=768, depth=12, num_heads=12)
    trainer = quiet_trainer(
        tmp_path,
        accelerator="gpu",
        devices=1,
        max_steps=3,
        precision="bf16-mixed",
        strategy=make_strategy(strategy, accelerator="gpu", devices=1),
    )
    batches = [tiny_batch(config, 32, seed=seed) for seed in range(3)]
    torch.cuda.reset_peak_memory_stats()
    trainer.fit(tiny_module(config), datamodule=Batches(batches))
    run = Run(architecture=config, objective=ObjectiveConfig(), strategy=strategy, num_devices=1, micro_batch=32)
    # What runs besides the tensors is not in torch's figure.
    assert torch.cuda.max_memory_allocated() == pytest.approx(make_plan(run).memory.peak - GIB, rel=0.2)
