"""Where a shard set lies: a folder, or a URL with a cache in front of it. Both give open files to the reader."""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from framework.core.errors import DataError
from framework.data.remote.cache import Blob, ShardCache
from framework.data.remote.files import Patience, RemoteConfig, fetch_bytes, retried
from framework.data.shards.manifest import INDEX, MANIFEST, ShardRecord, parse_manifest, read_manifest

CHECK = "see what is wrong with: framework shards check"
# The header that numpy writes for an array of int64 rows, whatever their number: padded to a multiple of 64.
_NPY_HEADER_BYTES = 128


class LocalBackend:
    """A folder.

    Attributes:
        path: the place, for messages and for opening it again.
        manifest: what the set holds.
        manifest_sha256: of the manifest's bytes where another process must find the same; None for a folder.

    Raises:
        DataError: no shard set, or a shard that is missing or of another size than recorded.
    """

    manifest_sha256: str | None = None

    def __init__(self, path: Path) -> None:
        self.path: Path | str = path
        self._folder = path
        self.manifest = read_manifest(path)
        for shard in self.manifest.shards:
            try:
                size = (path / shard.name).stat().st_size
            except OSError as error:
                problem = f"shard {path / shard.name} cannot be opened ({error.strerror})"
                raise DataError(problem, hint=f"{CHECK} {path}") from None
            if size != shard.num_bytes:
                problem = f"shard {path / shard.name} has {size:,} bytes, not {shard.num_bytes:,}"
                raise DataError(problem, hint=f"{CHECK} {path}")

    def open_index(self) -> int:
        """A descriptor of the index; OSError."""
        return os.open(self._folder / INDEX, os.O_RDONLY)

    def open_shard(self, shard: ShardRecord) -> int:
        """A descriptor of a shard; OSError."""
        return os.open(self._folder / shard.name, os.O_RDONLY)

    def name(self, file: str) -> str:
        """Where a file of the set is, for messages."""
        return str(self._folder / file)

    def prefetch(self, shards: Sequence[ShardRecord]) -> None:
        """Nothing: the kernel reads ahead."""


class RemoteBackend:
    """A URL that fsspec knows, such as `https://...` or `s3://bucket/set`.

    Args:
        url: of the set's folder.
        config: the cache, and how patient to be.
        release: closes the files that the cache has removed, when their room is needed.
        manifest_sha256: of the manifest that this set had when another process opened it.

    Attributes:
        path, manifest, manifest_sha256: as of a folder.

    Raises:
        DataError: no shard set there, or it cannot be fetched; another set than before.
    """

    def __init__(
        self, url: str, config: RemoteConfig, *, release: Callable[[], None], manifest_sha256: str | None = None
    ) -> None:
        self.path: Path | str = url
        self._cache = ShardCache(config, release=release)
        self._ahead = _FetchAhead(self._cache)
        data = self._cached_manifest(manifest_sha256) or self._fetch_manifest()
        self.manifest_sha256: str | None = hashlib.sha256(data).hexdigest()
        if manifest_sha256 not in (None, self.manifest_sha256):
            problem = f"{self.name(MANIFEST)} has changed since this set was opened"
            raise DataError(problem, hint="start again, and leave a set alone while it is used")
        self.manifest = parse_manifest(data, where=self.name(MANIFEST))
        if manifest_sha256 is None:
            self._keep_manifest(data, self.manifest_sha256)

    def open_index(self) -> int:
        """A descriptor of the index; DataError."""
        num_bytes = _NPY_HEADER_BYTES + 32 * self.manifest.num_samples
        return self._cache.open(self._blob(INDEX, self.manifest.index_sha256, num_bytes))

    def open_shard(self, shard: ShardRecord) -> int:
        """A descriptor of a shard, fetched if need be; DataError."""
        return self._cache.open(self._blob(shard.name, shard.sha256, shard.num_bytes))

    def name(self, file: str) -> str:
        """Where a file of the set is, for messages."""
        return f"{str(self.path).rstrip('/')}/{file}"

    def prefetch(self, shards: Sequence[ShardRecord]) -> None:
        """Shards that will be read soon, the next one first, in place of those named before."""
        self._ahead.want([self._blob(shard.name, shard.sha256, shard.num_bytes) for shard in shards])

    def _blob(self, file: str, sha256: str, num_bytes: int) -> Blob:
        return Blob(url=self.name(file), sha256=sha256, num_bytes=num_bytes)

    def _fetch_manifest(self) -> bytes:
        patience = Patience(self.name(MANIFEST), self._cache.config)
        return retried(lambda: fetch_bytes(self.name(MANIFEST), patience=patience), patience=patience)

    def _manifest_path(self, sha256: str) -> Path:
        return self._cache.folder / "manifests" / sha256

    def _cached_manifest(self, sha256: str | None) -> bytes | None:
        """The manifest that another process of this node has kept: its workers need not ask the server."""
        if sha256 is None:
            return None
        try:
            data = self._manifest_path(sha256).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def _keep_manifest(self, data: bytes, sha256: str) -> None:
        path = self._manifest_path(sha256)
        partial = path.with_name(f"{sha256}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(exist_ok=True)
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            problem = f"the cache folder {self._cache.folder} cannot be written ({error.strerror})"
            raise DataError(problem, hint="make room there, or give another folder for the cache") from None


class _FetchAhead:
    """Fetches files in a background thread, one after the other; a process that was forked has its own."""

    def __init__(self, cache: ShardCache) -> None:
        self._cache = cache
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._wanted: deque[Blob] = deque()
        self._running = False

    def want(self, blobs: list[Blob]) -> None:
        if self._process != os.getpid():
            self._reset()
        with self._lock:
            self._wanted = deque(blobs)
            if self._running or not blobs:
                return
            self._running = True
        threading.Thread(target=self._run, daemon=True, name="fetch ahead").start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._running = False
                    return
                blob = self._wanted.popleft()
            try:
                os.close(self._cache.open(blob, quiet=True))
            except Exception:  # The reader meets it too, and it is the reader's to say so.
                continue


Backend = LocalBackend | RemoteBackend
