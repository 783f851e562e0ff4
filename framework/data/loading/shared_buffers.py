"""Shared memory that carries batches from the loader's workers, and is used again and again.

A shared page that the kernel has to find and clear costs more than to copy it: a fifth of decoding a photograph.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from framework.core.compat.torch_compat import shared_storage
from framework.data.loading.batch import PixelBatch

_keys = count()
_of_this_process: "weakref.WeakValueDictionary[int, SharedBuffers]" = weakref.WeakValueDictionary()


class SharedBuffers:
    """Places for batches. The training process gives them out; workers only write where they are told.

    Args:
        num_buffers: places; where none is free, a worker makes new memory.
        num_bytes: of a place.
    """

    def __init__(self, num_buffers: int, num_bytes: int) -> None:
        # The kernel gives pages when they are first written.
        storage = shared_storage(num_buffers * num_bytes)
        self._memory = torch.empty(0, dtype=torch.uint8).set_(storage)
        self._num_bytes = num_bytes
        # The last one that came back is the next to go: its pages are there already.
        self._free = list(range(num_buffers))
        self._asked: set[int] = set()
        self.key = next(_keys)
        _of_this_process[self.key] = self

    def __getstate__(self) -> dict[str, object]:
        # For workers, which need the memory alone.
        return {"_memory": self._memory, "_num_bytes": self._num_bytes, "key": self.key}

    @cached_property
    def _array(self) -> UInt8[np.ndarray, "bytes"]:
        """All places. Torch takes ten times as long to cut one out."""
        return self._memory.numpy()

    def ask(self) -> int | None:
        """A free place for a batch that a worker is asked for."""
        if not self._free:
            return None
        buffer = self._free.pop()
        self._asked.add(buffer)
        return buffer

    def forget(self) -> None:
        """Nothing that was asked for will come any more: takes the places back."""
        self._free.extend(self._asked)
        self._asked.clear()

    def view(self, buffer: int, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
        """A place to write to, for workers."""
        start = buffer * self._num_bytes
        return self._array[start : start + prod(shape)].reshape(shape)

    def lend(self, buffer: int, shape: tuple[int, ...]) -> UInt8[Tensor, "..."]:
        """What a worker has written. The place is free again when nothing refers to this tensor's memory any more."""
        self._asked.discard(buffer)
        start = buffer * self._num_bytes
        array = self._array[start : start + prod(shape)]
        # A tensor of an array keeps it alive as long as any view of the tensor is.
        weakref.finalize(array, self._free.append, buffer).atexit = False
        return torch.from_numpy(array).view(shape)


@dataclass(frozen=True, kw_only=True)
class InBuffer:
    """A batch of images on its way from a worker: its pixels lie in a place of `SharedBuffers`.

    Attributes:
        key: of the buffers.
        buffer: the place.
        shape: (batch, height, width, channel).
        others: the other fields of `PixelBatch`, with arrays for tensors: those travel as bytes.
    """

    key: int
    buffer: int
    shape: tuple[int, ...]
    others: dict[str, Any]

    def batch(self) -> PixelBatch:
        """The batch, in the training process."""
        pixels = _of_this_process[self.key].lend(self.buffer, self.shape)
        return PixelBatch(pixels=pixels, **with_tensors(self.others))

    def pin_memory(self) -> PixelBatch:
        """The batch in page-locked memory; the place is free again."""
        return self.batch().pin_memory()


def with_tensors(fields: Mapping[str, object]) -> dict[str, Any]:
    """The same with tensors in the place of arrays."""
    return {name: torch.from_numpy(each) if isinstance(each, np.ndarray) else each for name, each in fields.items()}
