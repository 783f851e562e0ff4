"""The open files of a process: how many, which of them, and what is told where there are too many."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.data import open_files
from framework.data.open_files import OPEN_FILES, OpenFiles, max_open, way_out
from framework.data.shards.reader import ShardSet
from framework.testing.images import make_image_shards


def null() -> int:
    return os.open("/dev/null", os.O_RDONLY)


@pytest.fixture
def few_left() -> Iterator[None]:
    """A process that may open twelve files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The limit is on the number of a descriptor: those that are free among the ones in use are taken first.
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    taken = [null()]
    while taken[-1] <= highest:
        taken.append(null())
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + 12, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for descriptor in taken:
        os.close(descriptor)


def test_those_used_longest_ago_are_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(open_files, "max_open", lambda: 2)
    files = OpenFiles()
    first = files.get((0, 0), null)
    files.get((0, 1), null)
    assert files.get((0, 0), null) is first
    files.get((1, 0), null)
    assert ((0, 0) in files, (0, 1) in files, (1, 0) in files) == (True, False, True)
    files.close_all_of(0)
    assert ((0, 0) in files, len(files)) == (False, 1)
    # Whoever holds a file can go on reading it.
    assert os.pread(first.descriptor, 1, 0) == b""


def test_a_fourth_of_the_limit(monkeypatch: pytest.MonkeyPatch):
    for limit, expected in ((1024, 256), (20, 16), (1 << 20, 1024), (resource.RLIM_INFINITY, 1024)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert max_open() == expected


def test_removed_files_are_closed(tmp_path: Path):
    files = OpenFiles()
    for number in range(2):
        (tmp_path / str(number)).touch()
        files.get((0, number), lambda number=number: os.open(tmp_path / str(number), os.O_RDONLY))
    (tmp_path / "1").unlink()
    files.close_removed()
    assert ((0, 0) in files, (0, 1) in files) == (True, False)


@pytest.mark.usefixtures("few_left")
def test_more_files_than_the_process_may_open():
    files = OpenFiles()
    for number in range(40):
        files.get((0, number), null)
    assert 0 < len(files) < 40
    held = [files.get((1, number), null) for number in range(12)]
    with pytest.raises(OSError, match="Too many open files") as raised:
        files.get((1, len(held)), null)
    assert "files open: raise that with ulimit -n" in way_out(raised.value, "write it again")
    assert way_out(OSError(errno.ENOENT, "No such file"), "write it again") == "write it again"


@pytest.mark.slow
def test_many_sets_under_a_low_limit(tmp_path: Path, request: pytest.FixtureRequest):
    make_image_shards(tmp_path, per_class=6, size=4, samples_per_shard=1)
    sets = [ShardSet(tmp_path / "shards") for _ in range(4)]
    expected = [sets[0].read(number) for number in range(12)]
    request.getfixturevalue("few_left")
    for _ in range(2):
        for shards in sets:
            assert [shards.read(number) for number in range(12)] == expected
    for owner in {owner for owner, _ in OPEN_FILES._files}:
        OPEN_FILES.close_all_of(owner)
    taken = []
    with suppress(OSError):
        while True:
            taken.append(null())
    # The set is sound: it is not to blame.
    with pytest.raises(DataError, match=r"cannot be read \(Too many open files\): .* ulimit -n"):
        sets[0].read(0)
    for descriptor in taken:
        os.close(descriptor)
    assert sets[0].read(0) == expected[0]


def test_a_garbage_collection_does_not_wait_for_the_thread_that_it_comes_in():
    files, collected = OpenFiles(), []

    class Keys(tuple[int, int]):
        """A key whose hash, asked for while the lock is held, stands for an allocation that a collection comes at."""

        def __hash__(self) -> int:
            if not collected:
                collected.append(True)
                files.close_all_of(0)
            return super().__hash__()

    files.get((0, 0), null)
    files.get(Keys((1, 0)), null)
    assert collected
    # Whoever has the lock does not look again; the next call does.
    assert (0, 0) in files
    files.get((1, 0), null)
    assert (0, 0) not in files
    assert (1, 0) in files
