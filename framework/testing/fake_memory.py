"""The memory that a computation would take, counted with tensors that have shapes and no values."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, UntypedStorage

from framework.core.compat.torch_compat import FakeTensorMode, TorchDispatchMode, storage_key


class StorageCount(TorchDispatchMode):
    """Counts the storages of tensors that operations make within it, as long as they live.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Views of what was there before, such as weights, are not new.
        given = {storage_key(tensor) for tensor in _tensors([*args, *(kwargs or {}).values()])}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            if (key := storage_key(tensor)) not in given and key not in self._alive:
                self._note(key, tensor.untyped_storage())
        return result

    def _note(self, key: int, storage: UntypedStorage) -> None:
        self._alive.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors(each)


def fake_peak(prepare: Callable[[], Callable[[], object]]) -> int:
    """Bytes that a computation takes at most, beside what was prepared before it.

    Args:
        prepare: makes what is needed, such as a model of any size, and returns the computation.
    """
    with FakeTensorMode():
        compute = prepare()
        with StorageCount() as count:
            compute()
        return count.peak
