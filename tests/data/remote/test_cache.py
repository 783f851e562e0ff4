"""Remote shards over real HTTP: whole or not at all, fetched once, whatever the server does."""

import errno
import logging
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework.core.errors import ConfigError, DataError
from framework.data.open_files import OPEN_FILES
from framework.data.remote import cache as cache_module
from framework.data.remote.cache import ShardCache
from framework.data.remote.files import RemoteConfig
from framework.data.shards.reader import ShardSet
from framework.testing.images import make_image_shards
from framework.testing.servers.http_faults import FaultyServer, serve_with_faults

SHARD = "shard-000001.tar"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("remote")
    make_image_shards(path, per_class=6, samples_per_shard=3)
    return path / "shards"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "set")


@pytest.fixture
def server(folder: Path) -> Iterator[FaultyServer]:
    with serve_with_faults(folder) as server:
        yield server


def config(tmp_path: Path, **changes) -> RemoteConfig:
    times = {"stall_s": 5.0, "time_limit_s": 20.0, "first_pause_s": 0.01, "report_after_s": 10.0}
    return RemoteConfig(**{"folder": str(tmp_path / "cache"), **times, **changes})


def samples(shards: ShardSet) -> list[tuple[bytes, int]]:
    return [shards.read(number) for number in range(len(shards))]


def cached(tmp_path: Path) -> dict[str, int]:
    """Sizes of the whole files in the cache; nothing may be left on its way."""
    assert list((tmp_path / "cache" / "partial").iterdir()) == []
    return {path.name: path.stat().st_size for path in (tmp_path / "cache" / "files").iterdir()}


@pytest.mark.slow
def test_same_samples_as_in_the_folder(folder: Path, server: FaultyServer, tmp_path: Path):
    remote = ShardSet(server.url, remote=config(tmp_path))
    assert samples(remote) == samples(ShardSet(folder))
    assert remote.describe(4).endswith(f"of {server.url}/{SHARD})")
    assert samples(ShardSet(server.url, remote=config(tmp_path))) == samples(remote)
    assert set(server.requests.values()) <= {1, 2}
    assert server.requests[SHARD] == server.requests["index.npy"] == 1


def test_a_shard_is_fetched_when_it_is_read(server: FaultyServer, tmp_path: Path):
    shards = ShardSet(server.url, remote=config(tmp_path))
    shards.read(4)
    assert set(server.requests) == {"manifest.json", "index.npy", SHARD}


def test_pickled_set_asks_the_server_nothing(server: FaultyServer, tmp_path: Path):
    shards = ShardSet(server.url, remote=config(tmp_path))
    expected = shards.read(4)
    before = dict(server.requests)
    assert pickle.loads(pickle.dumps(shards)).read(4) == expected
    assert server.requests == before


def test_set_that_changed_meanwhile(folder: Path, server: FaultyServer, tmp_path: Path):
    data = pickle.dumps(ShardSet(server.url, remote=config(tmp_path)))
    shutil.rmtree(tmp_path / "cache")
    path = folder / "manifest.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(DataError, match=r"manifest.json has changed since"):
        pickle.loads(data)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["500", "drop", "flip", "short"])
def test_what_goes_by_is_tried_again(folder: Path, server: FaultyServer, tmp_path: Path, fault, caplog):
    for name in ("manifest.json", "index.npy", SHARD):
        # A manifest in part, or with a flipped bit, has no checksum before it.
        server.faults[name] = ["500", "drop"] if name == "manifest.json" else [fault, fault]
    assert samples(ShardSet(server.url, remote=config(tmp_path))) == samples(ShardSet(folder))
    assert server.requests[SHARD] == 3
    assert f"attempt 2 at {server.url}/{SHARD} failed" in caplog.text
    assert len(cached(tmp_path)) == 5


@pytest.mark.slow
def test_server_that_hangs(folder: Path, server: FaultyServer, tmp_path: Path):
    server.faults[SHARD] = ["hang"]
    shards = ShardSet(server.url, remote=config(tmp_path, stall_s=0.5))
    start = time.monotonic()
    assert shards.read(4) == ShardSet(folder).read(4)
    assert 0.5 < time.monotonic() - start < 5
    server.release.set()
    assert len(cached(tmp_path)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("500", r"was not to be had in .* s and \d+ attempts .last: .*500"),
        ("hang", r"nothing arrived for|not here after"),
        ("404", r"shard-000001.tar cannot be fetched .FileNotFoundError"),
        ("flip", r"shard-000001.tar arrives damaged, 3 times of 3 .its sha256 is not the manifest's"),
    ],
)
def test_what_stays_is_an_error_in_time(server: FaultyServer, tmp_path: Path, fault, message):
    server.faults[SHARD] = [fault] * 1000
    shards = ShardSet(server.url, remote=config(tmp_path, stall_s=1.0, time_limit_s=2.5))
    start = time.monotonic()
    with pytest.raises(DataError, match=message) as raised:
        shards.read(4)
    assert SHARD in str(raised.value)
    assert time.monotonic() - start < 10
    assert server.requests[SHARD] < 30
    assert len(cached(tmp_path)) == 1


def test_no_server_and_no_set(server: FaultyServer, tmp_path: Path):
    with pytest.raises(DataError, match=r"manifest.json was not to be had"):
        ShardSet("http://127.0.0.1:9/set", remote=config(tmp_path, time_limit_s=0.3))
    with pytest.raises(DataError, match=r"sub/nothing/manifest.json cannot be fetched .FileNotFoundError"):
        ShardSet(f"{server.url}/sub/nothing/", remote=config(tmp_path)).read(0)
    with pytest.raises(DataError, match=r"Protocol not known: nope.*framework\[s3\]"):
        ShardSet("nope://x", remote=config(tmp_path))


def test_manifest_that_leads_out_of_the_cache(folder: Path, server: FaultyServer, tmp_path: Path):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(SHARD, "../../evil.tar"))
    with pytest.raises(DataError, match=r"names a shard '../../evil.tar'"):
        ShardSet(server.url, remote=config(tmp_path))


def test_index_of_another_set(folder: Path, server: FaultyServer, tmp_path: Path):
    data = bytearray((folder / "index.npy").read_bytes())
    data[-1] ^= 1
    (folder / "index.npy").write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"index.npy arrives damaged"):
        ShardSet(server.url, remote=config(tmp_path))
    with pytest.raises(DataError, match=r"index.npy is not the index that the manifest was written with"):
        ShardSet(folder)


@pytest.mark.slow
def test_waiting_is_said(server: FaultyServer, tmp_path: Path, caplog):
    server.faults[SHARD] = ["slow"]
    shards = ShardSet(server.url, remote=config(tmp_path, report_after_s=0.3))
    with caplog.at_level(logging.WARNING):
        shards.read(4)
    assert f"waiting for {server.url}/{SHARD} since 0 s" in caplog.text


@pytest.mark.slow
def test_oldest_files_make_room(folder: Path, server: FaultyServer, tmp_path: Path):
    records = ShardSet(folder).manifest.shards
    index_bytes = (folder / "index.npy").stat().st_size
    room = index_bytes + sum(record.num_bytes for record in records[:2])
    shards = ShardSet(server.url, remote=config(tmp_path, max_bytes=room))
    expected = samples(ShardSet(folder))
    assert samples(shards) == expected
    left = cached(tmp_path)
    assert sum(left.values()) <= room
    assert records[3].sha256 in left
    assert records[0].sha256 not in left
    # Its file is gone; it is open still.
    assert samples(shards) == expected
    assert shards.read(0) == expected[0]


@pytest.mark.slow
def test_removed_files_are_closed(folder: Path, server: FaultyServer, tmp_path: Path):
    room = (folder / "index.npy").stat().st_size + max(path.stat().st_size for path in folder.glob("*.tar"))
    shards = ShardSet(server.url, remote=config(tmp_path, max_bytes=room))
    for number in list(range(len(shards))) * 2:
        shards.read(number)
        assert len([key for key in OPEN_FILES._files if key[0] == shards._number]) <= 2


def test_shard_larger_than_the_cache(server: FaultyServer, tmp_path: Path):
    shards = ShardSet(server.url, remote=config(tmp_path, max_bytes=1000))
    with pytest.raises(ConfigError, match=r"bytes, the cache takes 1,000: raise the cache's max_bytes"):
        shards.read(0)


def test_prefetch(server: FaultyServer, tmp_path: Path):
    shards = ShardSet(server.url, remote=config(tmp_path))
    server.faults[SHARD] = ["500"]
    shards.prefetch([3, 1])
    deadline = time.monotonic() + 10
    while len(list((tmp_path / "cache" / "files").iterdir())) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shards.read(4)
    shards.read(9)
    assert (server.requests[SHARD], server.requests["shard-000003.tar"], server.requests["shard-000000.tar"]) == (
        2,
        1,
        0,
    )


@pytest.mark.slow
def test_read_waits_for_the_prefetch(server: FaultyServer, tmp_path: Path):
    shards = ShardSet(server.url, remote=config(tmp_path))
    server.faults[SHARD] = ["slow"]
    shards.prefetch([1])
    while not server.requests[SHARD]:
        time.sleep(0.01)
    shards.read(4)
    assert server.requests[SHARD] == 1


def _read_all(arguments: tuple[str, RemoteConfig]) -> list[tuple[bytes, int]]:
    url, remote = arguments
    return samples(ShardSet(url, remote=remote))


@pytest.mark.slow
@pytest.mark.parametrize("bounded", [False, True])
def test_processes_share_a_cache(folder: Path, server: FaultyServer, tmp_path: Path, bounded: bool):
    """Two jobs on one cache, bounded: smaller than what the four of them have open."""
    size = max(path.stat().st_size for path in folder.glob("*.tar"))
    remote = config(tmp_path, **({"max_bytes": 2 * size} if bounded else {}))
    expected = samples(ShardSet(folder))
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_read_all, [(server.url, remote)] * 4, chunksize=1) == [expected] * 4
        pool.close()
        pool.join()
    if bounded:
        assert sum(cached(tmp_path).values()) <= 2 * size
    else:
        assert {name: number for name, number in server.requests.items() if name != "manifest.json"} == {
            **{f"shard-00000{number}.tar": 1 for number in range(4)},
            "index.npy": 1,
        }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 on fork.
def test_set_is_used_after_a_fork(folder: Path, server: FaultyServer, tmp_path: Path):
    shards = ShardSet(server.url, remote=config(tmp_path))
    shards.read(0)
    shards.prefetch([1])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(shards.read, range(12), chunksize=6) == samples(ShardSet(folder))
        pool.close()
        pool.join()


@pytest.mark.slow
def test_killed_process_leaves_nothing_locked(folder: Path, server: FaultyServer, tmp_path: Path):
    server.faults[SHARD] = ["hang"]
    code = (
        "import sys; from framework.data.shards.reader import ShardSet; "
        "from framework.data.remote.files import RemoteConfig; "
        "ShardSet(sys.argv[1], remote=RemoteConfig(folder=sys.argv[2])).read(4)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, server.url, str(tmp_path / "cache")])
    while not server.requests[SHARD]:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert list((tmp_path / "cache" / "partial").iterdir())
    assert ShardSet(server.url, remote=config(tmp_path)).read(4) == ShardSet(folder).read(4)
    assert len(cached(tmp_path)) == 2


@pytest.mark.slow
def test_process_that_holds_a_shard_forever(server: FaultyServer, tmp_path: Path):
    remote = config(tmp_path, time_limit_s=0.5)
    shards = ShardSet(server.url, remote=remote)
    blob = shards._backend._blob(SHARD, shards.manifest.shards[1].sha256, 1)  # pyright: ignore[reportAttributeAccessIssue]
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        cache = ShardCache(config(tmp_path))
        with cache._locked(blob, cache_module.Patience("x", cache.config)):
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with pytest.raises(DataError, match=rf"{SHARD} is not here after .*another process or thread is fetching it"):
        shards.read(4)
    done.set()
    thread.join()


@pytest.mark.slow
def test_file_in_the_cache_that_was_cut(folder: Path, server: FaultyServer, tmp_path: Path):
    ShardSet(server.url, remote=config(tmp_path)).read(4)
    for path in (tmp_path / "cache" / "files").iterdir():
        os.truncate(path, 10)
    assert ShardSet(server.url, remote=config(tmp_path)).read(4) == ShardSet(folder).read(4)


SMALL_FILES = """
import resource, sys
from framework.data.shards.reader import ShardSet
from framework.data.remote.files import RemoteConfig
shards = ShardSet(sys.argv[1], remote=RemoteConfig(folder=sys.argv[2], first_pause_s=0.01))
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
shards.read(4)
"""


@pytest.mark.slow
def test_file_too_large_for_the_disk(server: FaultyServer, tmp_path: Path):
    command = [sys.executable, "-c", SMALL_FILES, server.url, str(tmp_path / "cache")]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert re.search(rf"DataError: .*{SHARD} cannot be kept in the cache at .*: give another folder", run.stderr), (
        run.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize("helps", [False, True])
def test_full_disk(folder: Path, server: FaultyServer, tmp_path: Path, monkeypatch, helps: bool):
    shards = ShardSet(server.url, remote=config(tmp_path))
    shards.read(0)
    fetch, files = cache_module.fetch_file, tmp_path / "cache" / "files"

    def full(url, target, **options):
        if any(files.iterdir()) or not helps:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fetch(url, target, **options)

    monkeypatch.setattr(cache_module, "fetch_file", full)
    if helps:
        assert shards.read(4) == ShardSet(folder).read(4)
        assert len(cached(tmp_path)) == 1
    else:
        with pytest.raises(DataError, match=r"cannot be kept in the cache .No space left on device at .*: make room"):
            shards.read(4)


def test_cache_folder_that_cannot_be_made(server: FaultyServer, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cache folder .* cannot be made"):
        ShardSet(server.url, remote=config(tmp_path, folder=str(tmp_path / "file" / "cache")))


TINY_DISK = """
import sys
from pathlib import Path
from framework.data.shards.reader import ShardSet
from framework.data.remote.files import RemoteConfig
url, local, disk = sys.argv[1:]
remote = RemoteConfig(folder=f"{disk}/cache", first_pause_s=0.01)
there, here = ShardSet(url, remote=remote), ShardSet(local)
assert [there.read(number) for number in range(len(here))] == [here.read(number) for number in range(len(here))]
print(sum(path.stat().st_size for path in Path(disk).rglob("*")))
"""


@pytest.mark.slow
def test_disk_smaller_than_the_set(tmp_path: Path):
    """A real full disk, below the cache's own bound: older shards make room although this process has them open."""
    (tmp_path / "disk").mkdir()
    command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=400k none "$1" && shift && exec "$@"', "sh"]
    if subprocess.run([*command, str(tmp_path / "disk"), "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    make_image_shards(tmp_path, per_class=60, size=64, samples_per_shard=10)
    total = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir())
    assert total > 1_000_000
    disk = str(tmp_path / "disk")
    with serve_with_faults(tmp_path / "shards") as server:
        words = [sys.executable, "-c", TINY_DISK, server.url, str(tmp_path / "shards"), disk]
        done = subprocess.run([*command, disk, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400 * 1024
