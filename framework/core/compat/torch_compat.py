"""Private parts of torch (2.9 to 2.13)."""

# This file is where they may be used; torch says the types of none of them.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false, reportUnknownVariableType=false

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import _get_default_store, _set_pg_timeout
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

__all__ = [
    "CAST",
    "FakeTensorMode",
    "TorchDispatchMode",
    "compile_without_buckets",
    "default_store",
    "is_waited_for",
    "onednn_product",
    "packed_weight",
    "packs_weights",
    "set_timeout",
    "shared_storage",
    "split_quietly",
    "storage_key",
    "version_of",
    "worker_pids",
]

CAST = torch.ops.aten._to_copy.default
"""The operation that autocast makes copies in another type by."""


_aten = torch.ops.aten
_READS = (_aten._local_scalar_dense, _aten.equal, _aten.nonzero, _aten.masked_select, _aten._unique2)
"""Operations whose results, or the sizes of them, are needed on the host."""


def is_waited_for(operation: object, args: Sequence[object], options: Mapping[str, object]) -> bool:
    """Whether the host waits for the device before an operation returns.

    Copies between devices that are not `non_blocking`, values that are read, tensors that are made of numbers of the
    host.

    Args:
        operation: as a dispatch mode is given it.
        args: its arguments.
        options: its arguments by name.
    """
    kind = getattr(operation, "overloadpacket", None)
    first = args[0] if args and isinstance(args[0], Tensor) else None
    if first is None:
        return False
    if kind is _aten._to_copy:
        there = options.get("device")
        moves = there is not None and torch.device(str(there)).type != first.device.type
        return moves and not options.get("non_blocking", False)
    if kind is _aten.copy_:
        source = args[1]
        moves = isinstance(source, Tensor) and source.device.type != first.device.type
        return moves and not (args[2] if len(args) > 2 else options.get("non_blocking", False))
    # A tensor that torch.tensor makes of numbers comes to the device by a copy that modes do not see.
    return first.device.type != "cpu" and (kind in _READS or kind is _aten.lift_fresh)


def compile_without_buckets() -> None:
    """Compiled code under DDP is not cut where DDP's buckets of gradients end.

    Where blocks are compiled one by one their gradients come one after the other anyway; cut, one graph becomes three.
    """
    # It takes a second to import.
    from torch._dynamo import config

    assert hasattr(config, "optimize_ddp")
    config.optimize_ddp = False


def default_store() -> dist.Store:
    """A connection of its own to the store of the default process group."""
    return _get_default_store().clone()  # type: ignore[attr-defined]


@contextmanager
def split_quietly() -> Generator[None, None, None]:
    """Groups of CPU and GPU are split without torch's warning that gloo's half is given the options of NCCL's.

    That half then has gloo's own options, of which the time-out alone matters: see `set_timeout`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tried to pass options to ProcessGroupGloo::split")
        yield


def set_timeout(mesh: DeviceMesh, timeout: timedelta) -> None:
    """The time-out of all collectives in a mesh, on the CPU and on GPUs.

    Groups of a mesh do not inherit it: torch gives NCCL's 10 minutes, and gloo's half of a split group half an hour.

    Args:
        mesh: whose groups are set.
        timeout: after which a collective gives up.
    """
    for group in mesh.get_all_groups():
        _set_pg_timeout(timeout, group)


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


def version_of(tensor: Shaped[Tensor, "..."]) -> int:
    """How often a tensor's values were changed in place; 0 where nobody counts, as in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def packs_weights(dtype: torch.dtype) -> bool:
    """Whether this build of torch has oneDNN's products of a number type, fast on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def packed_weight(weight: Shaped[Tensor, "outputs inputs"]) -> Shaped[Tensor, "outputs inputs"]:
    """A weight in oneDNN's layout for products of few rows; only `onednn_product` can read it."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _FEW_ROWS)


def onednn_product(
    x: Shaped[Tensor, "*axes inputs"],
    weight: Shaped[Tensor, "outputs inputs"],
    bias: Shaped[Tensor, "outputs"] | None,
) -> Shaped[Tensor, "*axes outputs"]:
    """The product x W^T + b by oneDNN, without gradient.

    Args:
        x: in the number type of the weight.
        weight: what `packed_weight` gave, or a plain one, which is laid out anew in every call.
        bias: in the number type of the weight, or None.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


_FEW_ROWS = 16
