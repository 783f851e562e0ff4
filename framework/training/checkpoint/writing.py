"""Completing a checkpoint: checksums, manifest, rename, pointer, retention; in the background where asked for."""

import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar, cast

import torch.distributed as dist

from framework.core.collectives import all_gather_object, rank_and_size
from framework.core.errors import CheckpointError, FrameworkError
from framework.core.io import atomic_write
from framework.training.checkpoint.layout import (
    FOLDER,
    STATE,
    FileRecord,
    Manifest,
    Retention,
    list_checkpoints,
    name_of,
    point_to_newest,
    publish,
    remove,
)

log = logging.getLogger(__name__)
WriteTensors = Callable[[], dict[Path, FileRecord]]
"""Writes this rank's tensors, flushed to the disk, and returns its files with their sizes and checksums."""
Value = TypeVar("Value")
_CHECK_DISK = "check the disk's space and the folder"


@dataclass(frozen=True, kw_only=True)
class SaveOptions:
    """How `Trainer.save_checkpoint` saves; given as its `storage_options`.

    Args:
        asynchronous: return once the state is copied, and write it while training goes on.
        retention: which checkpoints of the folder stay once this one is complete; None: all.
    """

    asynchronous: bool = False
    retention: Retention | None = None


@dataclass(frozen=True, kw_only=True)
class Save:
    """A checkpoint on its way to the disk.

    Attributes:
        partial, target: its temporary and its final folder.
        manifest: without the files.
        state: bytes of the plain state, on rank 0.
        write: writes this rank's tensors into `partial`.
        retention: as in `SaveOptions`.
        group: the processes' group for this; None for a single process.
    """

    partial: Path
    target: Path
    manifest: Manifest
    state: bytes
    write: WriteTensors
    retention: Retention | None
    group: dist.ProcessGroup | None


def together(
    action: Callable[[], Value],
    what: str,
    group: dist.ProcessGroup | None = None,
    *,
    hint: str = "use another checkpoint of the run",
) -> Value:
    """What `action` returns on this rank, unless it fails on one: then that failure, on every rank. Collective.

    Args:
        action: what each rank does.
        what: begins the message of a failure, such as "X could not be saved".
        group: the processes that take part; None for all.
        hint: what to do about an error that says nothing of it; by default of one that is read.

    Raises:
        CheckpointError: `what` failed, where and why.
    """
    result, problem = None, None
    try:
        result = action()
    except FrameworkError as error:
        problem = (error.problem, error.hint)
    except OSError as error:
        told = filter(None, (what, error.filename, error.strerror or str(error)))
        problem = (": ".join(told), _CHECK_DISK)
    except Exception as error:
        log.debug("%s", what, exc_info=error)
        cause = str(error).partition("\n")[0]
        problem = (f"{what} ({type(error).__name__}: {cause})", hint)
    problems = all_gather_object(problem, group)
    for rank, found in enumerate(problems):
        if found is not None:
            where = "" if all(problems) else f" on rank {rank}"
            raise CheckpointError(found[0] + where, hint=found[1])
    # No rank has a problem, so the action came to its end here.
    return cast(Value, result)


def complete(save: Save) -> None:
    """Writes a checkpoint, and gives it its name when all of it is on the disk. Collective.

    Raises:
        CheckpointError: a rank failed; then there is no checkpoint of that name, and older ones are as they were.
    """
    rank, _ = rank_and_size()
    try:
        failed = f"{save.target} could not be saved"
        records = together(lambda: _write(save), failed, save.group, hint=_CHECK_DISK)
        files = {name: record for each in all_gather_object(records, save.group) for name, record in each.items()}
        finish = (lambda: _finish(save, files)) if rank == 0 else (lambda: None)
        together(finish, failed, save.group, hint=_CHECK_DISK)
    except CheckpointError as error:
        if rank == 0:
            log.error("%s", error)
            # The disk may be full of it.
            shutil.rmtree(save.partial, ignore_errors=True)
        raise


def _write(save: Save) -> dict[str, FileRecord]:
    """Writes this rank's part; returns its files by their paths inside the checkpoint."""
    own = save.write()
    if rank_and_size()[0] == 0:
        with atomic_write(save.partial / STATE) as file:
            file.write(save.state)
        own[save.partial / STATE] = FileRecord(size=len(save.state), sha256=sha256(save.state).hexdigest())
    return {path.relative_to(save.partial).as_posix(): record for path, record in own.items()}


def _finish(save: Save, files: dict[str, FileRecord]) -> None:
    replace(save.manifest, files=files).write(save.partial)
    publish(save.partial, save.target)
    folder = save.target.parent
    if folder.name == FOLDER and save.target.name == name_of(save.manifest.step):
        point_to_newest(folder)
        if save.retention is not None:
            for old in save.retention.superfluous(list_checkpoints(folder)):
                remove(old)


class Background:
    """One save at a time, in a thread of its own."""

    def __init__(self) -> None:
        self._running: Future[None] | None = None

    def start(self, save: Save) -> None:
        """Completes `save` in the background; the last one has been waited for."""
        assert self._running is None
        self._running = future = Future()

        def work() -> None:
            try:
                complete(save)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)

        # A daemon: what a dying process leaves unfinished is not a checkpoint, and nothing to wait for.
        threading.Thread(target=work, name="checkpoint", daemon=True).start()

    def is_running(self) -> bool:
        """Whether a save is still going on."""
        return self._running is not None and not self._running.done()

    def check(self) -> None:
        """Raises CheckpointError if the save has failed; does not wait."""
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self, timeout: float | None = None) -> None:
        """Waits for the save, if there is one.

        Raises:
            CheckpointError: it failed.
            TimeoutError: it is not done after `timeout` seconds.
        """
        if self._running is not None:
            running = self._running
            try:
                running.result(timeout)
            except FutureTimeoutError:
                # Before Python 3.11 not Python's own.
                raise TimeoutError(f"not saved after {timeout} s") from None
            finally:
                if running.done():
                    self._running = None
