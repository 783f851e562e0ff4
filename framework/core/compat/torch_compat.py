"""Private parts of torch (2.9 to 2.13)."""

# This file is where they may be used; torch says the types of none of them.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false, reportUnknownVariableType=false

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.distributed_c10d import _get_default_store
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

__all__ = [
    "CAST",
    "FakeTensorMode",
    "TorchDispatchMode",
    "default_store",
    "shared_storage",
    "storage_key",
    "unset_fake_temporarily",
    "worker_pids",
]

CAST = torch.ops.aten._to_copy.default
"""The operation that autocast makes copies in another type by."""


def default_store() -> dist.Store:
    """A connection of its own to the store of the default process group."""
    return _get_default_store().clone()  # type: ignore[attr-defined]


def shared_storage(num_bytes: int) -> torch.UntypedStorage:
    """Memory that other processes can map; the kernel gives a page when it is first written.

    `share_memory_` would take memory of this process first, and copy it.
    """
    return torch.UntypedStorage._new_shared(num_bytes)  # pyright: ignore[reportUnknownMemberType]


def storage_key(tensor: Shaped[Tensor, "..."]) -> int:
    """What tells one storage from another, also of a fake tensor, which has no address."""
    return tensor.untyped_storage()._cdata


def worker_pids(loader: DataLoader[object]) -> list[int]:
    """Processes of a loader that is being read and has workers."""
    iterator = loader._iterator
    assert iterator is not None
    return [worker.pid for worker in iterator._workers]  # type: ignore[attr-defined]
