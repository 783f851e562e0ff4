"""How the strategies save and load checkpoints: mixins that go in front of Lightning's strategies.

Lightning's sequence, which these hooks are called in. Saving: `lightning_module_state_dict`, `optimizer_state`, the
states of everything else, `save_checkpoint`. Loading, after the model and the optimizers are set up and sharded:
`load_checkpoint` (the plain state), the module's `on_load_checkpoint` (which refuses another architecture by name),
`load_model_state_dict`, the data module, the callbacks, the loops, `load_optimizer_state_dict`, the schedules.
"""

import io
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer

from framework.core.collectives import broadcast_object, rank_and_size
from framework.core.errors import CheckpointError, ConfigError
from framework.core.io import sync_folder
from framework.tracking.run_folder import saved_wandb_id
from framework.training.checkpoint.choose import Choice, choose_checkpoint
from framework.training.checkpoint.layout import PARTIAL, Manifest, remove
from framework.training.checkpoint.provenance import data_of, git_revision, package_versions, recipe_changes
from framework.training.checkpoint.read import read_state
from framework.training.checkpoint.staging import Staging
from framework.training.checkpoint.tensors import (
    load_model,
    load_optimizers,
    model_tensors,
    optimizer_state,
    share_of,
    split_optimizers,
    write_tensors,
)
from framework.training.checkpoint.writing import Background, Save, SaveOptions, WriteTensors, complete, together
from framework.training.shapes import AnyTensor, NamedTensors
from framework.training.shutdown import note_error
from framework.training.strategies.config import CheckpointKind

if TYPE_CHECKING:
    _Base = Strategy
else:
    _Base = object

log = logging.getLogger(__name__)
_PATIENCE_SECONDS = 300.0


class _Nothing(dict[str, object]):
    """A checkpoint for a run that starts anew: Lightning reads its version, and skips what is false."""

    def __bool__(self) -> bool:
        return False


class DirectoryCheckpoints(_Base):
    """A checkpoint is a folder, written under a temporary name; what the two kinds have in common.

    Attributes:
        recipe: the run's resolved recipe, YAML; goes into checkpoints and is compared with theirs.
        start_anew: loading from a run's folder without a checkpoint is not an error.
        choice: what was loaded.
    """

    kind: CheckpointKind
    recipe: str | None = None
    start_anew: bool = False
    choice: Choice | None = None
    _group: dist.ProcessGroup | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._background = Background()

    # Saving.

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None) -> None:
        """Saves a checkpoint as the folder `filepath`.

        Args:
            checkpoint: Lightning's, all of it.
            filepath: a path that is not there yet.
            storage_options: `SaveOptions`.

        Raises:
            CheckpointError: it cannot be saved, or one in the background, waited for first, could not be.
        """
        options = storage_options or SaveOptions()
        assert isinstance(options, SaveOptions)
        self.wait_for_save()
        rank, size = rank_and_size()
        target = Path(broadcast_object(str(filepath)))
        partial = target.with_name(target.name + PARTIAL)
        what = f"{target} could not be saved"
        together(lambda: _begin(target, partial) if rank == 0 else None, what)
        if self._group is None and size > 1:
            # Of its own, so that its traffic does not mix with that of training.
            group = dist.new_group(backend="gloo")
            assert not isinstance(group, int), "every rank is a member"
            self._group = group
        write = self._prepare_write(checkpoint, partial, options.asynchronous)
        state = together(lambda: _plain_bytes(checkpoint) if rank == 0 else b"", what)
        save = Save(
            partial=partial,
            target=target,
            manifest=self._describe(checkpoint),
            state=state,
            write=write,
            retention=options.retention,
            group=self._group,
        )
        if options.asynchronous:
            self._background.start(save)
        else:
            complete(save)

    def _prepare_write(self, checkpoint: dict[str, Any], partial: Path, copy: bool) -> WriteTensors:
        """Takes the tensors out of `checkpoint`; what it returns is called later, and writes them into `partial`."""
        raise NotImplementedError

    def _describe(self, checkpoint: dict[str, Any]) -> Manifest:
        assert self.lightning_module is not None
        states = [value for value in checkpoint.values() if isinstance(value, dict)]
        return Manifest(
            step=checkpoint["global_step"],
            kind=self.kind,
            world_size=rank_and_size()[1],
            strategy=type(self).__name__,
            samples_consumed=next((s["samples_consumed"] for s in states if "samples_consumed" in s), None),
            recipe=self.recipe,
            data=data_of(self.lightning_module.trainer),
            git_revision=git_revision() if rank_and_size()[0] == 0 else None,
            packages=package_versions(),
            wandb_id=saved_wandb_id(self.lightning_module.trainer.default_root_dir),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def is_saving(self) -> bool:
        """Whether a save in the background is still going on."""
        return self._background.is_running()

    def check_save(self) -> None:
        """Raises CheckpointError if a save in the background has failed; does not wait."""
        self._background.check()

    def wait_for_save(self) -> None:
        """Waits for the save in the background; raises CheckpointError if it failed."""
        self._background.wait()

    def remove_checkpoint(self, filepath: str | Path) -> None:
        if rank_and_size()[0] == 0:
            remove(Path(filepath))

    def finish_save(self) -> None:
        """Lets a save in the background come to its end when training has failed.

        A state from before the fault is worth its time; a failure of its own, or of the connection to a rank that is
        gone, is not the one to tell of.
        """
        with suppress(Exception):
            self._background.wait(_PATIENCE_SECONDS)

    def on_exception(self, exception: BaseException) -> None:
        self.finish_save()
        # Of a launcher that has started processes itself.
        note_error(exception, getattr(self.launcher, "procs", []))
        super().on_exception(exception)

    # Loading.

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        return True

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, object]:
        """The plain state of a checkpoint, or of the newest undamaged one of a run's folder.

        The process group exists here: all ranks take the same one. Its tensors are loaded once the module has seen
        this. Nothing in a checkpoint is ever run, whatever `weights_only` says.

        Raises:
            CheckpointError: nothing to load, all damaged, or of another version.
        """
        path = Path(broadcast_object(str(checkpoint_path)))
        self.choice = choice = choose_checkpoint(path, may_be_none=self.start_anew)
        assert self.lightning_module is not None
        if choice.path is None:
            self.lightning_module.trainer.ckpt_path = None
            return _Nothing({"pytorch-lightning_version": lightning.__version__})
        assert choice.manifest is not None
        if choice.manifest.kind != self.kind:
            raise CheckpointError(
                f"{choice.path} is by {choice.manifest.strategy}, and {type(self).__name__} cannot go on from it",
                hint="use that strategy, or export the weights and start from these",
            )
        if rank_and_size()[0] == 0:
            log.info("resuming from %s", choice.path)
            for change in recipe_changes(choice.manifest.recipe, self.recipe):
                log.info("changed since: %s", change)
        found = choice.path
        return together(lambda: read_state(found), f"{found} could not be loaded")

    @property
    def loaded_from(self) -> Path:
        """The checkpoint that is being loaded."""
        assert self.choice is not None
        assert self.choice.path is not None
        return self.choice.path


def checkpoints_of(strategy: Strategy) -> DirectoryCheckpoints:
    """A trainer's strategy as the one that saves and loads its checkpoints.

    Raises:
        ConfigError: it is not one of ours.
    """
    if not isinstance(strategy, DirectoryCheckpoints):
        raise ConfigError(
            f"the trainer's strategy {type(strategy).__name__} saves no such checkpoints",
            hint="take one of framework.training.strategies.build.make_strategy",
        )
    return strategy


class DCPCheckpoints(DirectoryCheckpoints):
    """Checkpoints by torch.distributed.checkpoint, for the single process, DDP and FSDP2: one format.

    Goes on from any number of processes and from each other's checkpoints.
    """

    kind: CheckpointKind = "dcp"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._staging = Staging()

    def is_part(self, tensor: AnyTensor) -> bool:
        """Whether each rank has another part of a tensor, and not all the same; never, where no rank has parts."""
        return False

    def lightning_module_state_dict(self) -> NamedTensors:
        assert self.lightning_module is not None
        return model_tensors(self.lightning_module)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        assert self.lightning_module is not None
        return {**optimizer_state(self.lightning_module, optimizer)}

    def _prepare_write(self, checkpoint: dict[str, Any], partial: Path, copy: bool) -> WriteTensors:
        rank, size = rank_and_size()
        tensors, plain = split_optimizers(checkpoint.pop("optimizer_states", []))
        tensors |= checkpoint.pop("state_dict")
        checkpoint["optimizer_states"] = plain
        tensors = share_of(tensors, rank, size, is_part=self.is_part)
        if copy:
            tensors = self._staging.copy(tensors)

        return lambda: write_tensors(partial, tensors, self._group)

    def load_model_state_dict(self, checkpoint: Mapping[str, object], strict: bool = True) -> None:
        module = self.lightning_module
        assert module is not None
        together(lambda: load_model(self.loaded_from, module), f"{self.loaded_from} could not be loaded")

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        module = self.lightning_module
        assert module is not None
        together(
            lambda: load_optimizers(self.loaded_from, module, self.optimizers, checkpoint["optimizer_states"]),
            f"{self.loaded_from} could not be loaded",
        )


def _begin(target: Path, partial: Path) -> None:
    """Makes the temporary folder."""
    if target.exists():
        raise CheckpointError(f"{target} exists, and no checkpoint is overwritten", hint="use another --run.dir")
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists():
        # Of a save that failed.
        shutil.rmtree(partial)
    partial.mkdir()
    sync_folder(partial.parent)


def _plain_bytes(checkpoint: Mapping[str, object]) -> bytes:
    """The plain state as a file's content.

    Raises:
        CheckpointError: it could not be read again without running code.
    """
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    content = stream.getvalue()
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        odd = [key for key, value in checkpoint.items() if not _is_plain(value)]
        problem = f"the state to save holds more than plain types in {', '.join(odd) or 'it'}"
        raise CheckpointError(problem, hint="give only plain types and tensors to checkpoints") from error
    return content


def _is_plain(value: object) -> bool:
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    try:
        torch.load(stream, weights_only=True)
    except Exception:
        return False
    return True
