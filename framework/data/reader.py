"""Random access to the samples of a shard set."""

import os
from pathlib import Path

import numpy as np

from framework.data.manifest import INDEX, Manifest, read_manifest
from framework.errors import DataError

_CHECK = "see what is wrong with: framework shards check"


class ShardSet:
    """The samples of a shard set, by number.

    Holds one open file for each shard that has been read. Reads name their own position, so processes may share the
    files after a fork; after a spawn the set is opened anew.

    Args:
        path: the set's folder.

    Attributes:
        path: the set's folder.
        manifest: what the set holds.
        index: int64 rows (shard number, offset, size in bytes, label) of the samples, mapped from the file.

    Raises:
        DataError: no shard set, a shard that is missing or of another size than recorded, or an index that does not
            belong to it.
    """

    def __init__(self, path: str | Path) -> None:
        self._descriptors: dict[int, int] = {}
        self.path = Path(path)
        self.manifest: Manifest = read_manifest(self.path)
        for shard in self.manifest.shards:
            try:
                size = (self.path / shard.name).stat().st_size
            except OSError as error:
                problem = f"shard {self.path / shard.name} cannot be opened ({error.strerror})"
                raise DataError(problem, mend=f"{_CHECK} {self.path}") from None
            if size != shard.num_bytes:
                problem = f"shard {self.path / shard.name} has {size:,} bytes, not {shard.num_bytes:,}"
                raise DataError(problem, mend=f"{_CHECK} {self.path}")
        self.index = read_index(self.path, self.manifest)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in it."""
        return self.manifest.classes

    def __len__(self) -> int:
        return len(self.index)

    def read(self, number: int) -> tuple[bytes, int]:
        """The image file's bytes and the label of a sample.

        Args:
            number: in [0, len).

        Raises:
            DataError: the shard cannot be read there.
        """
        shard, offset, size, label = (int(value) for value in self.index[number])
        try:
            data = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            problem = f"{self.describe(number)} cannot be read ({error.strerror})"
            raise DataError(problem, mend=f"{_CHECK} {self.path}") from None
        if len(data) != size:
            problem = f"{self.describe(number)} ends after {len(data)} of {size} bytes"
            raise DataError(problem, mend=f"{_CHECK} {self.path}")
        return data, label

    def describe(self, number: int) -> str:
        """A sample's number, shard and place in it, for messages."""
        shard, offset = (int(value) for value in self.index[number, :2])
        return f"sample {number} (byte {offset} of {self.path / self.manifest.shards[shard].name})"

    def __reduce__(self) -> tuple[type["ShardSet"], tuple[Path]]:
        return ShardSet, (self.path,)

    def __del__(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def _descriptor(self, shard: int) -> int:
        if shard not in self._descriptors:
            self._descriptors[shard] = os.open(self.path / self.manifest.shards[shard].name, os.O_RDONLY)
        return self._descriptors[shard]


def read_index(path: Path, manifest: Manifest) -> np.ndarray:
    """Maps the index of the shard set at `path`: int64 rows (shard number, offset, size in bytes, label).

    Raises:
        DataError: it is missing, damaged, or does not fit the manifest.
    """
    try:
        index = np.load(path / INDEX, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path / INDEX} cannot be read ({error})", mend="write the shard set again") from None
    if index.dtype != np.int64 or index.shape != (manifest.num_samples, 4):
        problem = f"{path / INDEX} has shape {index.shape} for {manifest.num_samples} samples"
        raise DataError(problem, mend="write the shard set again")
    return index
