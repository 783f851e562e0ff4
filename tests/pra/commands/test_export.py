"""Weights go out of a checkpoint of any strategy, and come in again for sampling or a new run."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file, save_file

from framework.cli.export import export
from framework.core.errors import CheckpointError, ConfigError
from framework.pra.checkpoint import load_objective, load_pra
from framework.pra.export import ExportedModel
from framework.testing.models import Batches, quiet_trainer, tiny_batch, tiny_config, tiny_module
from framework.testing.processes.forked import run_forked
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.checkpoint.layout import FOLDER, MANIFEST
from framework.training.checkpoint.read import find_checkpoint, read_tensors


class Weights(Callback):
    """Notes the whole weights when training starts and ends, as digests by name."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = {part: digests(getattr(pl_module, part)) for part in ("model", "ema")}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end = {part: digests(getattr(pl_module, part)) for part in ("model", "ema")}


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


def digests(model: torch.nn.Module) -> dict[str, str]:
    found = {}
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_tensor"):
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                found[name] = digest(parameter)
        else:
            found[name] = digest(parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter)
    return found


def fit(run_dir: Path, *callbacks: Callback, initial_weights: str | None = None, **options: Any) -> None:
    trainer = quiet_trainer(
        run_dir, callbacks=[*callbacks, Checkpoints()], enable_checkpointing=True, max_steps=2, **options
    )
    batches = [tiny_batch(tiny_config(), 2, seed=seed) for seed in range(2)]
    trainer.fit(tiny_module(initial_weights=initial_weights), datamodule=Batches(batches))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("export") / "run"
    fit(run_dir)
    return run_dir


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["ema", "raw"])
@pytest.mark.parametrize("max_shard_gib", [None, 8e-6])
def test_an_export_is_the_weights_and_where_they_come_from(run: Path, tmp_path: Path, weights: Any, max_shard_gib: Any):
    out = tmp_path / "new" / "pra.safetensors"
    export(str(run), str(out), weights=weights, max_shard_gib=max_shard_gib)
    checkpoint = find_checkpoint(run)
    expected = read_tensors(checkpoint, "ema." if weights == "ema" else "model.")
    names = sorted(path.name for path in out.parent.iterdir())
    if max_shard_gib is None:
        assert names == ["config.json", "pra.safetensors"]
        found, entry = load_file(out), out
    else:
        entry = out.parent / "pra.safetensors.index.json"
        index = json.loads(entry.read_text())
        shards = sorted(set(index["weight_map"].values()))
        assert len(shards) > 2
        assert names == ["config.json", *shards, entry.name]
        assert shards[0] == f"pra-00001-of-{len(shards):05d}.safetensors"
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in expected.values())
        parts = {name: load_file(out.parent / name) for name in shards}
        limit = 8e-6 * 2**30
        assert all(len(p) == 1 or sum(t.nbytes for t in p.values()) <= limit for p in parts.values())
        found = {name: parts[file][name] for name, file in index["weight_map"].items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    config = json.loads((out.parent / "config.json").read_text())
    assert config["architecture"]["width"] == 16
    assert config["origin"]["weights"] == weights
    assert config["origin"]["step"] == 2
    assert config["origin"]["manifest_sha256"] == hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()
    for path in (entry, out.parent):
        model = load_pra(path)
        assert not model.training
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
        assert load_objective(path) == load_objective(run)


def test_an_export_replaces_only_what_it_may(run: Path, tmp_path: Path):
    out = tmp_path / "pra.safetensors"
    export(str(run), str(out), max_shard_gib=8e-6)
    for again in (out, out.parent / "other.safetensors"):
        with pytest.raises(ConfigError, match="exists"):
            export(str(run), str(again))
    with pytest.raises(ConfigError, match=r"config\.json is of pra\.safetensors\.index\.json"):
        export(str(run), str(tmp_path / "other.safetensors"), overwrite=True)
    export(str(run), str(out), overwrite=True)
    # Nothing of the earlier one is left.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "pra.safetensors"]
    load_pra(out)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="not of an export"):
        export(str(run), str(tmp_path / "foreign" / "pra.safetensors"), overwrite=True)


def test_what_cannot_be_exported_is_refused(run: Path, tmp_path: Path):
    out = str(tmp_path / "pra.safetensors")
    with pytest.raises(CheckpointError, match="/nowhere"):
        export("/nowhere", out)
    with pytest.raises(CheckpointError):
        export(str(tmp_path), out)
    with pytest.raises(ConfigError, match=r"ends in \.safetensors"):
        export(str(run), str(tmp_path / "pra.pt"))
    with pytest.raises(ConfigError, match="max_shard_gib 0"):
        export(str(run), out, max_shard_gib=0.0)
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_exports_are_refused_by_name(run: Path, tmp_path: Path):
    out = tmp_path / "a" / "pra.safetensors"
    export(str(run), str(out))
    flipped = shutil.copytree(out.parent, tmp_path / "flipped") / out.name
    content = bytearray(flipped.read_bytes())
    content[-16:] = bytes(255 - byte for byte in content[-16:])
    flipped.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pra\.safetensors does not match its checksum"):
        load_pra(flipped)
    cut = shutil.copytree(out.parent, tmp_path / "cut")
    (cut / out.name).unlink()
    with pytest.raises(CheckpointError, match=r"pra\.safetensors is missing"):
        load_pra(cut)
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        load_pra(shutil.copy(out, tmp_path / "alone.safetensors"))
    newer = shutil.copytree(out.parent, tmp_path / "newer")
    config = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps({**config, "format": 2}))
    with pytest.raises(CheckpointError, match="format 2"):
        load_pra(newer)
    tensors = load_file(out)
    name = next(iter(tensors))
    for changed, words in (
        ({**tensors, "more": torch.ones(1)}, "more is unknown"),
        ({k: v for k, v in tensors.items() if k != name}, f"{name} is missing"),
        ({**tensors, name: torch.ones(1)}, f"{name} is \\(1,\\) and not"),
    ):
        folder = shutil.copytree(out.parent, tmp_path / "changed", dirs_exist_ok=True)
        save_file(changed, folder / out.name)
        digest = hashlib.sha256((folder / out.name).read_bytes()).hexdigest()
        (folder / "config.json").write_text(json.dumps({**config, "files": {out.name: digest}}))
        with pytest.raises(CheckpointError, match=words):
            load_pra(folder)


@pytest.mark.slow
def test_a_new_run_starts_from_exported_weights(run: Path, tmp_path: Path):
    out = tmp_path / "pra.safetensors"
    export(str(run), str(out))
    exported = {name: digest(tensor) for name, tensor in load_file(out).items()}
    weights = Weights()
    fit(tmp_path / "new", weights, initial_weights=str(out))
    assert weights.start == {"model": exported, "ema": exported}
    assert weights.end["model"] != exported
    module = tiny_module(tiny_config(width=32), initial_weights=str(out))
    with pytest.raises(CheckpointError, match="width is 16 there and 32 in the recipe"):
        module.configure_model()


def import_sharded(run_dir: str, exported: str) -> dict[str, Any]:
    """Every strategy starts from an export and saves a checkpoint; the whole weights before and after."""
    from framework.testing.processes.deepspeed_cpu import CPUDeepSpeedStrategy
    from framework.training.strategies.build import make_strategy
    from framework.training.strategies.config import DeepSpeedOptions, StrategyConfig

    found = {}
    for name in ("ddp", "fsdp2", "zero1", "zero3"):
        if name.startswith("zero"):
            options = DeepSpeedOptions(stage=int(name[-1]))  # type: ignore[arg-type]
            strategy: Any = CPUDeepSpeedStrategy(StrategyConfig(name="deepspeed", deepspeed=options))
        else:
            strategy = make_strategy(StrategyConfig(name=name), accelerator="cpu", devices=2)  # type: ignore[arg-type]
        weights = Weights()
        fit(Path(run_dir) / name, weights, initial_weights=exported, strategy=strategy, devices=2)
        found[name] = {"start": weights.start, "end": weights.end}
    return found


@pytest.mark.slow
def test_every_strategy_takes_exported_weights_and_gives_them(run: Path, tmp_path: Path):
    pytest.importorskip("deepspeed")
    out = tmp_path / "pra.safetensors"
    export(str(run), str(out), max_shard_gib=8e-6)
    entry = ExportedModel.read(tmp_path).entry
    expected = {name: digest(t) for name, t in load_pra(tmp_path).named_parameters()}
    arguments = {"run_dir": str(tmp_path), "exported": str(entry)}
    results = run_forked(import_sharded, 2, **arguments).results
    for name in ("ddp", "fsdp2", "zero1", "zero3"):
        for rank in range(2):
            assert results[rank][name]["start"] == {"model": expected, "ema": expected}, name
        for weights, part in (("ema", "ema"), ("raw", "model")):
            again = tmp_path / name / weights / "pra.safetensors"
            export(str(tmp_path / name / FOLDER / "step=00000002"), str(again), weights=weights)  # type: ignore[arg-type]
            found = {key: digest(t) for key, t in load_file(again).items()}
            assert found == results[0][name]["end"][part], name
