"""A checkpoint is completed or absent, whatever fails in between."""

import hashlib
import os
import threading
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from framework.core.errors import CheckpointError, ConfigError
from framework.testing.checkpoints import steps_in
from framework.testing.faults import kill_at_event
from framework.testing.processes.forked import run_forked
from framework.training.checkpoint.choose import damage, newest_undamaged
from framework.training.checkpoint.layout import (
    FOLDER,
    FileRecord,
    Manifest,
    Retention,
    clean,
    list_checkpoints,
    name_of,
    step_of,
)
from framework.training.checkpoint.read import read_tensors
from framework.training.checkpoint.tensors import write_tensors
from framework.training.checkpoint.writing import Background, Save, WriteTensors, complete, together


def save_two(run_dir: str, kill_at: int) -> None:
    """Saves steps 1 and 2, of which one may stay: the second removes the first."""
    folder = Path(run_dir, FOLDER)
    folder.mkdir(parents=True)
    kill_at_event(kill_at, run_dir)
    for step in (1, 2):
        partial = folder / f"{name_of(step)}.partial"
        partial.mkdir()

        def write(partial: Path = partial, step: int = step) -> dict[Path, FileRecord]:
            return write_tensors(partial, {"model.weight": torch.full((100,), float(step))}, None)

        manifest = Manifest(step=step, kind="dcp", world_size=1, strategy="test")
        complete(
            Save(
                partial=partial,
                target=folder / name_of(step),
                manifest=manifest,
                state=b"state",
                write=write,
                retention=Retention(last=1),
                group=None,
            )
        )


def save_two_again_and_again(folder: str) -> list[int]:
    """Kills a process at its first access, another at its second and so on, until one comes to its end."""
    save_two(f"{folder}/warm", -1)
    codes: list[int] = []
    while codes[-1:] != [0]:
        # Forks of one that has done the imports: this has to be cheap.
        pid = os.fork()
        if pid == 0:
            save_two(f"{folder}/{len(codes) + 1}", len(codes) + 1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        codes.append(os.waitstatus_to_exitcode(status))
    return codes


@pytest.mark.slow
def test_a_kill_at_any_access_to_the_disk_leaves_a_complete_checkpoint(tmp_path: Path):
    """In mid-save, between rename and pointer, and in mid-pruning."""
    found: list[tuple[int, ...]] = []
    pointers = set()
    codes = run_forked(save_two_again_and_again, 1, folder=str(tmp_path)).results[0]
    assert set(codes[:-1]) == {-9}
    for number in range(1, len(codes) + 1):
        run_dir = tmp_path / str(number)
        there = steps_in(run_dir)
        choice = newest_undamaged(run_dir)
        assert choice.skipped == []
        assert all(damage(path, Manifest.read(path)) is None for path in list_checkpoints(run_dir / FOLDER))
        found.append(tuple(there))
        if there:
            assert choice.path is not None
            assert float(read_tensors(choice.path, "model.")["weight"][0]) == step_of(choice.path) == there[-1]
            pointer = run_dir / FOLDER / "newest"
            pointers.add(pointer.exists() and pointer.read_text() == name_of(there[-1]))
        clean(run_dir / FOLDER)
        left = {path.name for path in (run_dir / FOLDER).iterdir()}
        assert left == ({*map(name_of, there), "newest"} if there else set())
    assert found == sorted(found, key=lambda steps: steps[-1:]), "never back to an older one"
    assert {(), (1,), (1, 2), (2,)} == set(found)
    assert pointers == {True, False}, "kills between rename and pointer were among them"
    assert len(found) > 30


def save_of(folder: Path, write: WriteTensors) -> Save:
    partial = folder / f"{name_of(1)}.partial"
    partial.mkdir(parents=True)
    return Save(
        partial=partial,
        target=folder / name_of(1),
        manifest=Manifest(step=1, kind="dcp", world_size=1, strategy="test"),
        state=b"state",
        write=write,
        retention=None,
        group=None,
    )


def fail(error: Exception) -> NoReturn:
    raise error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigError("width 3", hint="use 4"), r"^width 3: use 4"),
        (OSError(28, "No space left on device", "/x"), r"^X failed: /x: No space left on device: check the disk"),
        (ValueError("odd\nmore"), r"^X failed \(ValueError: odd\): use another checkpoint of the run"),
    ],
)
def test_any_failure_becomes_a_checkpoint_error_that_says_what(error: Exception, words: str):
    assert together(lambda: 3, "X failed") == 3
    with pytest.raises(CheckpointError, match=words):
        together(lambda: fail(error), "X failed")


def test_in_the_background_one_save_at_a_time_and_its_failure_is_told_once(tmp_path: Path):
    started, go_on = threading.Event(), threading.Event()

    def write() -> dict[Path, FileRecord]:
        started.set()
        assert go_on.wait(60)
        return {}

    background = Background()
    background.wait()
    background.start(save_of(tmp_path / "good", write))
    assert started.wait(60)
    background.check()
    assert background.is_running()
    with pytest.raises(TimeoutError):
        background.wait(0.01)
    assert not (tmp_path / "good" / name_of(1)).exists()
    go_on.set()
    background.wait()
    assert not background.is_running()
    manifest = Manifest.read(tmp_path / "good" / name_of(1))
    assert manifest.files["state.pt"].sha256 == hashlib.sha256(b"state").hexdigest()
    background.start(save_of(tmp_path / "bad", lambda: fail(OSError(28, "No space left on device", "/x"))))
    with pytest.raises(CheckpointError, match="step=00000001 could not be saved: /x: No space left on device"):
        background.wait()
    assert list((tmp_path / "bad").iterdir()) == []
    background.check()


def test_a_save_that_fails_of_anything_else_does_not_ask_for_another_checkpoint():
    def fail() -> NoReturn:
        raise ValueError("odd")

    with pytest.raises(CheckpointError, match=r"x \(ValueError: odd\): use another checkpoint"):
        together(fail, "x")
    with pytest.raises(CheckpointError, match=r"x \(ValueError: odd\): check the disk"):
        together(fail, "x", hint="check the disk")
