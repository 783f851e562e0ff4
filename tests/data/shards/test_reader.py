"""Random access: from any process, and with errors that name the shard."""

import json
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from framework.core.errors import DataError
from framework.core.io import sha256_of
from framework.data.open_files import OPEN_FILES
from framework.data.shards import reader
from framework.data.shards.reader import ShardSet
from framework.testing.images import make_image_shards


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_image_shards(tmp_path, per_class=3, samples_per_shard=2)
    return tmp_path / "shards"


def test_any_order(path: Path):
    shards = ShardSet(path)
    samples = [shards.read(number) for number in range(len(shards))]
    assert len(samples) == 6
    assert [shards.read(number) for number in (5, 0, 3)] == [samples[5], samples[0], samples[3]]
    assert shards.read(-1) == samples[5]
    with pytest.raises(IndexError):
        shards.read(6)


def test_pickled_set_opens_its_own_files(path: Path):
    shards = ShardSet(path)
    expected = shards.read(3)
    data = pickle.dumps(shards)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert copy.read(3) == expected
    ours, theirs = (
        {file.descriptor for (owner, _), file in OPEN_FILES._files.items() if owner == each._number}
        for each in (shards, copy)
    )
    assert len(ours) == len(theirs) == 1
    assert ours != theirs


def test_a_set_that_is_gone_has_no_open_files(path: Path):
    shards = ShardSet(path)
    shards.read(0)
    number = shards._number
    assert (number, 0) in OPEN_FILES
    del shards
    assert (number, 0) not in OPEN_FILES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 on fork.
def test_forked_processes_share_a_set(path: Path):
    shards = ShardSet(path)
    expected = [shards.read(number) for number in range(6)] * 20
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(shards.read, list(range(6)) * 20, chunksize=1) == expected
        pool.close()
        pool.join()


def test_missing_shard(path: Path):
    (path / "shard-000001.tar").unlink()
    with pytest.raises(DataError, match=r"shard .*shard-000001.tar cannot be opened .*framework shards check"):
        ShardSet(path)


def test_shard_of_another_size(path: Path):
    (path / "shard-000001.tar").write_bytes(b"short")
    with pytest.raises(DataError, match=r"shard-000001.tar has 5 bytes, not [\d,]+: .*framework shards check"):
        ShardSet(path)


def test_shard_that_shrinks_while_it_is_used(path: Path):
    shards = ShardSet(path)
    (path / "shard-000002.tar").write_bytes(b"short")
    with pytest.raises(DataError, match=r"sample 5 \(byte \d+ of .*shard-000002.tar\) ends after 0 of \d+ bytes"):
        shards.read(5)


def test_shard_that_goes_while_it_is_used(path: Path):
    shards = ShardSet(path)
    (path / "shard-000002.tar").unlink()
    with pytest.raises(DataError, match=r"sample 5 \(byte \d+ of .*shard-000002.tar\) cannot be read \(No such file"):
        shards.read(5)


@pytest.mark.parametrize("index", [np.zeros((5, 4), dtype=np.int64), np.zeros((6, 4)), np.array([{}] * 6)])
def test_index_that_does_not_fit(path: Path, index: np.ndarray):
    np.save(path / "index.npy", index, allow_pickle=True)
    with pytest.raises(DataError, match=r"index.npy (has shape|cannot be read)"):
        ShardSet(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [(0, -1), (0, 3), (1, -1), (2, -1), (2, 1 << 40), (1, 1 << 62), (2, (1 << 63) - 1)],
    ids=lambda each: str(each),
)
def test_an_index_that_points_outside_of_its_shards(path: Path, column: int, value: int):
    index = np.load(path / "index.npy")
    index[4, column] = value
    np.save(path / "index.npy", index)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["index_sha256"] = sha256_of(path / "index.npy")
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="places sample 4 outside of its shard"):
        ShardSet(path)


@pytest.mark.parametrize("gap", [-1, 4096, 2**40])
def test_many_are_read_as_each_by_itself(path: Path, monkeypatch: pytest.MonkeyPatch, gap: int):
    monkeypatch.setattr(reader, "_GAP", gap)
    shards = ShardSet(path)
    rng = np.random.default_rng(0)
    for numbers in (np.arange(len(shards)), rng.permutation(len(shards)), rng.integers(0, len(shards), 40)):
        many = list(shards.read_many(numbers))
        assert sorted(place for place, _ in many) == list(range(len(numbers)))
        alone = [shards.read(number) for number in numbers.tolist()]
        assert dict(many) == dict(enumerate(data for data, _ in alone))
        assert shards.labels(numbers).tolist() == [label for _, label in alone]
    assert list(shards.read_many(numbers[:0])) == []


def test_neighbours_are_read_at_once(path: Path, monkeypatch: pytest.MonkeyPatch):
    shards, reads = ShardSet(path), []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: (reads.append(args), pread(*args))[1])
    list(shards.read_many(np.arange(len(shards))[::-1]))
    assert len(reads) == len(shards.manifest.shards)


def test_what_cannot_be_read_of_many_is_left_to_be_told_by_reading_it(path: Path):
    shards = ShardSet(path)
    numbers = np.arange(len(shards))
    shard = path / shards.manifest.shards[0].name
    os.truncate(shard, int(shards.index[0, 1]) + 1)
    (path / shards.manifest.shards[1].name).unlink()
    many = dict(shards.read_many(numbers))
    assert [many[place] is None for place in numbers] == (shards.index[:, 0] < 2).tolist()
