"""Manifests are logged by reference, each once, and only what is complete."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from framework.testing.faults import make_checkpoint, truncate
from framework.tracking.wandb_run import TrackedRun
from framework.training.callbacks.manifests import ManifestArtifacts
from framework.training.checkpoint.layout import FOLDER, name_of

MODULE = LightningModule()


class Kept(TrackedRun):
    """Keeps references instead of sending them."""

    def __init__(self) -> None:
        super().__init__(Path(), identity="x", name="x", project="x", online=False, restart=lambda: 0)
        self.seen: list[tuple[str, str, str, dict[str, Any]]] = []

    def _begin(self) -> None:
        pass

    def log_reference(self, name: str, kind: str, uri: str, metadata: dict[str, Any]) -> None:
        self.seen.append((name, kind, uri, metadata))


class Known(Trainer):
    """A trainer of which only this is known."""

    is_global_zero = loggers = default_root_dir = datamodule = None

    def __init__(self, **parts: Any) -> None:
        for name, part in parts.items():
            setattr(self, name, part)


def trainer(run_dir: Path, kept: Kept, **parts: Any) -> Trainer:
    return Known(**{"is_global_zero": True, "loggers": [object(), kept], "default_root_dir": str(run_dir), **parts})


def test_shard_sets_on_the_disk_and_far_away(tmp_path: Path):
    manifest = SimpleNamespace(num_samples=7, num_bytes=100, index_sha256="the same", digest="0123456789abcdef")
    sets = [SimpleNamespace(path=path, manifest=manifest) for path in (tmp_path / "shards", "https://host/shards/")]
    kept = Kept()
    ManifestArtifacts().on_train_start(trainer(tmp_path, kept, datamodule=SimpleNamespace(train_sets=sets)), MODULE)
    uris = [f"file://{tmp_path}/shards/manifest.json", "https://host/shards/manifest.json"]
    metadata = {"samples": 7, "bytes": 100, "digest": "0123456789abcdef"}
    assert kept.seen == [("shards-0123456789ab", "shards", uri, metadata) for uri in uris]


def test_a_checkpoint_is_logged_once_and_a_damaged_one_is_not(tmp_path: Path):
    kept, artifacts = Kept(), ManifestArtifacts()
    folder = tmp_path / FOLDER
    artifacts.on_validation_end(trainer(tmp_path, kept), MODULE)
    assert kept.seen == []
    for step in (1, 2):
        make_checkpoint(folder / name_of(step), {"model.weight": torch.ones(3)}, {}, step=step)
    truncate(folder / name_of(2) / "manifest.json")
    artifacts.on_validation_end(trainer(tmp_path, kept), MODULE)
    [(name, kind, uri, metadata)] = kept.seen
    assert (name, kind) == ("checkpoints-of-no-run", "checkpoint")
    assert uri == f"file://{folder}/step%3D00000001/manifest.json"
    others = [path for path in (folder / name_of(1)).iterdir() if path.name != "manifest.json"]
    assert metadata["bytes"] == sum(path.stat().st_size for path in others)
    assert (metadata["step"], metadata["world_size"]) == (1, 1)
    artifacts.on_fit_end(trainer(tmp_path, kept), MODULE)
    assert len(kept.seen) == 1


def test_only_the_first_rank_logs(tmp_path: Path):
    kept, artifacts = Kept(), ManifestArtifacts()
    make_checkpoint(tmp_path / FOLDER / name_of(1), {"model.weight": torch.ones(3)}, {})
    other = trainer(tmp_path, kept, is_global_zero=False, datamodule=SimpleNamespace(train_sets=[object()]))
    artifacts.on_train_start(other, MODULE)
    artifacts.on_fit_end(other, MODULE)
    assert kept.seen == []
