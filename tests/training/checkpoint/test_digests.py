"""Checksums that are taken on the way to the disk are those of the files that are there."""

import hashlib
import threading
from pathlib import Path

import pytest
import torch

from framework.testing.checkpoints import fit, newest
from framework.training.callbacks.checkpoints import Checkpoints
from framework.training.checkpoint import digests
from framework.training.checkpoint.digests import _HashedFile, _RecordedFiles, for_each_file, record_files
from framework.training.checkpoint.layout import FileRecord, Manifest
from framework.training.checkpoint.tensors import read_dcp, write_tensors


def record_of(path: Path) -> FileRecord:
    content = path.read_bytes()
    return FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_BYTES_OF_A_FILE", 4000)


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"model.{size}": torch.randn(size, generator=generator) for size in (3, 500, 1000, 2000)}


def test_what_is_recorded_while_writing_is_what_is_on_the_disk(tmp_path: Path):
    records = write_tensors(tmp_path, state(), None)
    assert {path.name for path in records} == {".metadata", "__0_0.distcp"}
    assert records == {path: record_of(path) for path in tmp_path.iterdir()}


@pytest.mark.usefixtures("several_files")
def test_a_large_state_goes_to_several_files_and_comes_back(tmp_path: Path):
    records = write_tensors(tmp_path, state(), None)
    assert {path.name for path in records} == {".metadata", *(f"__0_{number}.distcp" for number in range(3))}
    assert records == {path: record_of(path) for path in tmp_path.iterdir()}
    torch.testing.assert_close(read_dcp(tmp_path, "model."), state(), rtol=0, atol=0)


@pytest.mark.usefixtures("several_files")
@pytest.mark.parametrize("file", ["__0_0.distcp", "__0_2.distcp", ".metadata.tmp"])
def test_a_failure_of_any_of_the_threads_is_raised(tmp_path: Path, file: str):
    (tmp_path / file).mkdir()
    with pytest.raises(IsADirectoryError):
        write_tensors(tmp_path, state(), None)


@pytest.mark.parametrize("size", [3, 10_000])
def test_a_full_disk_is_named_though_torch_fails_of_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
):
    full = Path("/dev/full")
    monkeypatch.setattr(_RecordedFiles, "_open", lambda self, path, mode, opened: opened.enter_context(full.open("wb")))
    with pytest.raises(OSError, match="No space left on device"):
        write_tensors(tmp_path, {"model.weight": torch.zeros(size)}, None)


def test_a_file_that_has_ended_may_be_flushed(tmp_path: Path):
    written = _HashedFile((tmp_path / "a").open("wb"))
    written.write(b"a")
    written.close()
    written.flush()
    assert written.failure is None
    assert written.record() == record_of(tmp_path / "a")


@pytest.mark.slow
def test_the_manifest_of_a_run_has_the_checksums_of_its_files(tmp_path: Path):
    fit(tmp_path, Checkpoints(), batches=1)
    checkpoint = newest(tmp_path)
    files = Manifest.read(checkpoint).files
    assert files == {path.name: record_of(path) for path in checkpoint.iterdir() if path.name != "manifest.json"}


def test_files_are_looked_at_together_and_their_records_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = [tmp_path / str(number) for number in range(3)]
    for path in paths:
        path.write_text(path.name)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    both = threading.Barrier(2)
    assert for_each_file(lambda path: (both.wait(60), path.name)[1], paths[:2]) == ["0", "1"]
    assert list(record_files(paths).items()) == [(path, record_of(path)) for path in paths]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert record_files(paths) == {path: record_of(path) for path in paths}
    assert record_files([]) == {}
