"""A shard set in a bucket of a real S3-compatible server (moto, in a process of its own)."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework.core.errors import DataError
from framework.data.remote.files import RemoteConfig
from framework.data.shards.reader import ShardSet
from framework.testing.images import make_image_shards

s3fs = pytest.importorskip("s3fs", reason="needs the extra framework[s3]")
pytest.importorskip("moto.server", reason="needs moto[server]")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.mark.slow
def test_set_in_a_bucket(endpoint: str, tmp_path: Path):
    make_image_shards(tmp_path, per_class=4, samples_per_shard=3)
    options = {"key": "key", "secret": "secret", "endpoint_url": endpoint}
    bucket = s3fs.S3FileSystem(**options)
    bucket.mkdir("pictures")
    bucket.put(str(tmp_path / "shards"), "pictures/train", recursive=True)
    remote = RemoteConfig(
        folder=str(tmp_path / "cache"), storage_options=options, first_pause_s=0.01, stall_s=20.0, time_limit_s=40.0
    )
    shards, local = ShardSet("s3://pictures/train", remote=remote), ShardSet(tmp_path / "shards")
    shards.prefetch([2])
    assert [shards.read(number) for number in range(8)] == [local.read(number) for number in range(8)]
    assert len(list((tmp_path / "cache" / "files").iterdir())) == 4
    bucket.rm("pictures/train/shard-000001.tar")
    assert ShardSet("s3://pictures/train", remote=remote).read(4) == local.read(4)
    for path in (tmp_path / "cache" / "files").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"s3://pictures/train/shard-000001.tar cannot be fetched .FileNotFoundError"):
        ShardSet("s3://pictures/train", remote=remote).read(4)
    bucket.pipe("pictures/train/shard-000001.tar", b"x" * local.manifest.shards[1].num_bytes)
    with pytest.raises(DataError, match=r"shard-000001.tar arrives damaged, 3 times of 3"):
        ShardSet("s3://pictures/train", remote=remote).read(4)
    with pytest.raises(DataError, match=r"s3://pictures/nothing/manifest.json cannot be fetched .FileNotFoundError"):
        ShardSet("s3://pictures/nothing", remote=remote)
