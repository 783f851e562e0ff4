"""Which checkpoint to go on from: the newest that is whole, and the same one on every rank."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from framework.core.collectives import all_gather_object, broadcast_object, rank_and_size
from framework.core.console import working
from framework.core.errors import CheckpointError
from framework.core.io import sha256_of
from framework.training.checkpoint.digests import for_each_file
from framework.training.checkpoint.layout import FOLDER, MANIFEST, Manifest, NewerFormatError, list_checkpoints, step_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A checkpoint to go on from.

    Attributes:
        path: None to start anew.
        manifest: its manifest.
        skipped: newer ones that are damaged, with the reason, newest first.
    """

    path: Path | None = None
    manifest: Manifest | None = None
    skipped: list[tuple[Path, str]] = field(default_factory=list)


def damage(checkpoint: Path, manifest: Manifest) -> str | None:
    """Why a checkpoint cannot be trusted, or None: its files are there, with the sizes and checksums of its manifest.

    In a distributed run every rank calls this; they share the reading and get the same answer. Each reads several files
    at a time.
    """
    names = sorted(manifest.files, key=lambda name: -manifest.files[name].size)
    for problems_of in (_size_problems, _checksum_problems):
        rank, size = rank_and_size()
        found = problems_of(checkpoint, names[rank::size], manifest)
        if problems := [problem for each in all_gather_object(found) for problem in each]:
            more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
            return problems[0] + more
    return None


def _read(checkpoint: Path) -> Manifest:
    """The manifest as rank 0 sees it; what it raises, all raise."""
    found: Manifest | CheckpointError | None = None
    if rank_and_size()[0] == 0:
        try:
            found = Manifest.read(checkpoint)
        except CheckpointError as error:
            # Its cause may be nothing that can be sent.
            found = type(error)(error.problem, hint=error.hint)
    found = _received(found)
    if isinstance(found, CheckpointError):
        raise found
    return found


def _received(found: Manifest | CheckpointError | None) -> Manifest | CheckpointError:
    """Rank 0's; errors travel as their words, for they need keywords to be made again."""
    words = (type(found), found.problem, found.hint) if isinstance(found, CheckpointError) else found
    words = broadcast_object(words)
    if isinstance(words, tuple):
        kind, problem, hint = words
        return kind(problem, hint=hint)
    assert words is not None
    return words


def _size_problems(checkpoint: Path, names: list[str], manifest: Manifest) -> list[str]:
    return [problem for name in names if (problem := _size_problem(checkpoint, name, manifest))]


def _checksum_problems(checkpoint: Path, names: list[str], manifest: Manifest) -> list[str]:
    with working(f"verifying {checkpoint}") if rank_and_size()[0] == 0 else nullcontext():
        found = for_each_file(lambda name: _checksum_problem(checkpoint, name, manifest), names)
    return [problem for problem in found if problem]


def _size_problem(checkpoint: Path, name: str, manifest: Manifest) -> str | None:
    try:
        size = (checkpoint / name).stat().st_size
    except OSError:
        return f"{name} is missing"
    expected = manifest.files[name].size
    return None if size == expected else f"{name} has {size} bytes instead of {expected}"


def _checksum_problem(checkpoint: Path, name: str, manifest: Manifest) -> str | None:
    try:
        same = sha256_of(checkpoint / name) == manifest.files[name].sha256
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None if same else f"{name} does not match its checksum"


def newest_undamaged(run_dir: Path, say: Callable[[str], None] = log.warning) -> Choice:
    """The newest undamaged checkpoint of a run, if there is any checkpoint. Collective, as `damage`.

    Args:
        run_dir: the run's folder.
        say: told what is passed over, on rank 0, as it happens.

    Raises:
        CheckpointError: all are damaged, or one is of another version of the layout.
    """
    folder = run_dir / FOLDER
    candidates = broadcast_object(list_checkpoints(folder))
    skipped: list[tuple[Path, str]] = []
    for path in reversed(candidates):
        try:
            manifest = _read(path)
            reason = damage(path, manifest)
        except NewerFormatError:
            raise
        except CheckpointError as error:
            manifest, reason = None, error.problem
        if reason is None:
            return Choice(path=path, manifest=manifest, skipped=skipped)
        if rank_and_size()[0] == 0:
            say(f"skipped {path}: {reason}")
        skipped.append((path, reason))
    if skipped:
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in skipped)
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged ({reasons})",
            hint="restore one from a copy, or start anew in another run's folder",
        )
    return Choice()


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is meant as a checkpoint, whole or not, and not as a run's folder."""
    return (path / MANIFEST).exists() or path in list_checkpoints(path.parent)


def choose_checkpoint(path: Path, *, may_be_none: bool = False) -> Choice:
    """The checkpoint at `path`, or the newest undamaged one of the run's folder `path`. Collective, as `damage`.

    Args:
        path: a checkpoint or a run's folder.
        may_be_none: a run's folder without a checkpoint gives an empty choice.

    Raises:
        CheckpointError: there is none, or the one named is damaged.
    """
    if broadcast_object(is_checkpoint(path)):
        manifest = _read(path)
        if reason := damage(path, manifest):
            raise CheckpointError(f"{path}: {reason}", hint="use another checkpoint of the run")
        return Choice(path=path, manifest=manifest)
    choice = newest_undamaged(path)
    if choice.path is None and not may_be_none:
        if not path.exists():
            raise CheckpointError(f"{path} does not exist", hint="give a checkpoint or a run's folder")
        raise CheckpointError(f"no checkpoint in {path / FOLDER}", hint="give the folder of a run that has saved one")
    return choice


def refuse_existing(run_dir: Path) -> None:
    """What `--resume never` asks for.

    Raises:
        CheckpointError: the run has checkpoints.
    """
    if found := list_checkpoints(run_dir / FOLDER):
        raise CheckpointError(
            f"{run_dir} already holds checkpoints up to step {step_of(found[-1])}",
            hint="go on with --resume auto, or start anew with another --run.dir",
        )
