"""The folder of checkpoints: names, manifests, leftovers, and what stays."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from framework.testing.checkpoints import newest, steps_in
from framework.tracking.data_identity import DataIdentity, SetIdentity
from framework.training.checkpoint.choose import choose_checkpoint
from framework.training.checkpoint.layout import (
    FOLDER,
    MANIFEST,
    Manifest,
    Retention,
    clean,
    list_checkpoints,
    name_of,
    note_validation,
    point_to_newest,
    step_of,
    validated_steps,
)


@pytest.mark.slow
def test_leftovers_are_no_checkpoints_and_are_cleaned_away(run_dir: Path):
    folder = run_dir / FOLDER
    for suffix in (".partial", ".removed", ".damaged"):
        shutil.copytree(newest(run_dir), folder / f"step=00000009{suffix}")
    (folder / "newest.partial").write_text("step=0")
    (folder / "newest").write_text("step=00000009")
    (folder / "step=00000007").write_text("a file")
    assert steps_in(run_dir) == [2, 4, 5]
    assert choose_checkpoint(run_dir).path == newest(run_dir)
    clean(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "newest",
        *(name_of(step) for step in (2, 4, 5, 7)),
        "step=00000009.damaged",
    ]
    assert (folder / "newest").read_text() == name_of(5)


def made(folder: Path, *steps: int) -> list[Path]:
    for step in steps:
        (folder / name_of(step)).mkdir(parents=True)
    return list_checkpoints(folder)


def test_what_retention_gives_up(tmp_path: Path):
    paths = made(tmp_path, *range(10, 100, 10))

    def left(retention: Retention) -> list[int]:
        gone = retention.superfluous(paths)
        return [step_of(path) for path in paths if path not in gone]

    assert left(Retention(last=2)) == [80, 90]
    assert left(Retention(last=1, every_n_steps=30)) == [30, 60, 90]
    for step, value in ((10, 3.0), (20, 1.0), (30, 2.0), (35, 0.1), (40, float("nan")), (50, 1.0)):
        note_validation(tmp_path, step, {"validation/total": value})
    with (tmp_path / "validation.jsonl").open("a") as file:
        file.write('\n{"step": 60, "met')
    assert left(Retention(last=1, best=2, metric="validation/total")) == [20, 50, 90]
    assert left(Retention(last=1, best=1, metric="validation/total", mode="max")) == [10, 90]
    note_validation(tmp_path, 20, {"validation/total": 9.0})
    assert left(Retention(last=1, best=1, metric="validation/total")) == [50, 90]
    assert left(Retention(last=100)) == list(range(10, 100, 10))


def test_the_pointer(tmp_path: Path):
    point_to_newest(tmp_path)
    assert not (tmp_path / "newest").exists()
    [first, _] = made(tmp_path, 1, 2)
    point_to_newest(tmp_path)
    assert (tmp_path / "newest").read_text() == name_of(2)
    (tmp_path / name_of(2)).rmdir()
    point_to_newest(tmp_path)
    assert (tmp_path / "newest").read_text() == first.name


def test_manifests_come_back(tmp_path: Path, trained: Path):
    manifest = replace(Manifest.read(newest(trained)), recipe="a: 1\n", wandb_id="abc", samples_consumed=7)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_steps_whose_validation_came_to_its_end(tmp_path: Path):
    assert validated_steps(tmp_path) == set()
    for step in (2, 4):
        note_validation(tmp_path, step, {"validation/total": 1.0})
    with (tmp_path / "validation.jsonl").open("a") as stream:
        stream.write('\n{"step": 6, "metr')
    assert validated_steps(tmp_path) == {2, 4}


def test_data_are_in_the_manifest(tmp_path: Path):
    shards = SetIdentity(path="shards", digest="0" * 64, num_samples=3)
    data = DataIdentity(classes=("cat", "dog"), train=(shards,), validation=shards)
    manifest = Manifest(step=1, kind="dcp", world_size=1, strategy="x", data=data)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    # One of before.
    content = json.loads((tmp_path / MANIFEST).read_text())
    del content["data"]
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    assert Manifest.read(tmp_path) == replace(manifest, data=None)
