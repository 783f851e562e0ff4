"""Manifests of checkpoints and shard sets as W&B artifacts that refer to them."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from framework.core.errors import CheckpointError
from framework.tracking.wandb_run import TrackedRun
from framework.training.checkpoint.layout import FOLDER, MANIFEST, Manifest, list_checkpoints, step_of


class ManifestArtifacts(Callback):
    """Logs where the manifests are and what they say, by reference: W&B keeps no file of them.

    Shard sets at the start of training; checkpoints after a validation and at the end, those that are complete then.
    """

    def __init__(self) -> None:
        self._known: set[int] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        for shards in getattr(data, "train_sets", ()) if trainer.is_global_zero else ():
            manifest = shards.manifest
            metadata = {"samples": manifest.num_samples, "bytes": manifest.num_bytes, "digest": manifest.digest}
            # Sets of other images may have the same index: sizes and labels of samples.
            name = f"shards-{manifest.digest[:12]}"
            self._log(trainer, name, "shards", _uri(shards.path, MANIFEST), metadata)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log_checkpoints(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log_checkpoints(trainer)

    def _log_checkpoints(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero:
            return
        for path in list_checkpoints(Path(trainer.default_root_dir) / FOLDER):
            if (step := step_of(path)) in self._known:
                continue
            self._known.add(step)
            try:
                manifest = Manifest.read(path)
            except CheckpointError:
                continue
            metadata = {
                "step": step,
                "bytes": sum(file.size for file in manifest.files.values()),
                "world_size": manifest.world_size,
                "strategy": manifest.strategy,
                "git_revision": manifest.git_revision,
            }
            name = f"checkpoints-{manifest.wandb_id or 'of-no-run'}"
            self._log(trainer, name, "checkpoint", _uri(path, MANIFEST), metadata)

    def _log(self, trainer: Trainer, name: str, kind: str, uri: str, metadata: dict[str, object]) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TrackedRun):
                logger.log_reference(name, kind, uri, metadata)


def _uri(folder: Path | str, file: str) -> str:
    text = str(folder)
    return f"{text.rstrip('/')}/{file}" if "://" in text else (Path(text).resolve() / file).as_uri()
