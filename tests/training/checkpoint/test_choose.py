"""The right checkpoint is chosen: damaged ones are passed over with the reason."""

import json
from pathlib import Path

import pytest

from framework.core.errors import CheckpointError
from framework.testing.checkpoints import newest
from framework.testing.faults import flip_bytes, truncate
from framework.training.checkpoint.choose import choose_checkpoint, damage, newest_undamaged, refuse_existing
from framework.training.checkpoint.layout import (
    FOLDER,
    Manifest,
    list_checkpoints,
    name_of,
    step_of,
)
from framework.training.checkpoint.read import find_checkpoint

FAULTS = {
    "sixteen flipped bytes": (lambda c: flip_bytes(c / "__0_0.distcp"), "__0_0.distcp does not match its checksum"),
    "flipped state": (lambda c: flip_bytes(c / "state.pt"), "state.pt does not match its checksum"),
    "no metadata": (lambda c: (c / ".metadata").unlink(), ".metadata is missing"),
    "truncated shard": (lambda c: truncate(c / "__0_0.distcp"), r"__0_0.distcp has \d+ bytes instead of \d+"),
    "no shard": (lambda c: (c / "__0_0.distcp").unlink(), "__0_0.distcp is missing"),
    "no manifest": (lambda c: (c / "manifest.json").unlink(), "has no manifest.json"),
    "torn manifest": (lambda c: truncate(c / "manifest.json"), "manifest.json cannot be read"),
    "odd manifest": (lambda c: (c / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_one_is_passed_over_with_the_reason(run_dir: Path, fault: str):
    harm, words = FAULTS[fault]
    broken = newest(run_dir)
    harm(broken)
    told: list[str] = []
    choice = newest_undamaged(run_dir, told.append)
    assert choice.path == broken.with_name(name_of(4))
    [(skipped, reason)] = choice.skipped
    assert skipped == broken
    assert told == [f"skipped {broken}: {reason}"]
    with pytest.raises(CheckpointError, match=words) as error:
        find_checkpoint(broken)
    assert reason in error.value.problem


def test_several_damaged_ones(run_dir: Path):
    for path in list_checkpoints(run_dir / FOLDER)[1:]:
        (path / ".metadata").unlink()
        truncate(path / "state.pt")
    choice = newest_undamaged(run_dir)
    assert choice.path is not None
    assert step_of(choice.path) == 2
    assert [step_of(path) for path, _ in choice.skipped] == [5, 4]
    assert all("and 1 more" in reason for _, reason in choice.skipped)
    flip_bytes(choice.path / "__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged \(step=00000005: .*step=00000002"):
        choose_checkpoint(run_dir, may_be_none=True)


def test_a_flipped_bit_anywhere_is_found(run_dir: Path):
    checkpoint = newest(run_dir)
    manifest = Manifest.read(checkpoint)
    for name in manifest.files:
        content = (checkpoint / name).read_bytes()
        for place in range(0, len(content), max(1, len(content) // 20)):
            (checkpoint / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert damage(checkpoint, manifest) == f"{name} does not match its checksum"
        (checkpoint / name).write_bytes(content)
    assert damage(checkpoint, manifest) is None


def test_a_newer_version_is_refused_and_not_passed_over(run_dir: Path):
    path = newest(run_dir) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(CheckpointError, match="has format version 2, and this is for version 1: update the framework"):
        choose_checkpoint(run_dir)


def test_nothing_there(tmp_path: Path):
    assert choose_checkpoint(tmp_path, may_be_none=True).path is None
    refuse_existing(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"no checkpoint in .*checkpoints: give the folder of a run that has saved one"
    ):
        choose_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere does not exist: give a checkpoint or a run's folder"):
        find_checkpoint(tmp_path / "nowhere")


def test_a_run_that_has_some_is_not_started_anew(trained: Path):
    with pytest.raises(CheckpointError, match="already holds checkpoints up to step 5: go on with --resume auto"):
        refuse_existing(trained)
