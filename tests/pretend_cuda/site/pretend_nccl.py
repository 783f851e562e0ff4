"""A pretend NCCL on gloo, after `pretend_device`; refuses tensors that are not on a GPU, as NCCL does."""

import atexit
import os
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.distributed_c10d as c10d

nccl = import_module("pretend_cuda_nccl")


class Options(nccl.Options):
    """`ProcessGroupNCCL.Options`."""


class _Group(type):
    def __instancecheck__(cls, group: object) -> bool:
        return isinstance(group, nccl.PretendNccl)

    def __call__(cls, store: Any, rank: int, size: int, options: Any = None) -> Any:
        prefix = c10d.PrefixStore("pretend_nccl/", store)
        gloo = c10d.ProcessGroupGloo(prefix, rank, size, timeout=options._timeout)
        gloo.options.global_ranks_in_group = list(options.global_ranks_in_group) or list(range(size))
        return nccl.PretendNccl(gloo, options)


class ProcessGroupNCCL(metaclass=_Group):
    """Makes a pretend one when it is called."""

    Options = Options


_resize_of_cpu = torch.UntypedStorage.resize_


def _resize(storage: torch.UntypedStorage, num_bytes: int) -> torch.UntypedStorage:
    if storage.device.type != "cuda":
        return _resize_of_cpu(storage, num_bytes)
    tensor = torch.empty(0, dtype=torch.uint8, device=storage.device)
    with torch.no_grad():
        tensor.set_(storage)
    nccl.resize(tensor, num_bytes)
    return storage


c10d._NCCL_AVAILABLE = True
c10d.ProcessGroupNCCL = dist.ProcessGroupNCCL = ProcessGroupNCCL  # type: ignore[misc, assignment]
c10d.default_pg_nccl_timeout = timedelta(minutes=10)
torch.UntypedStorage.resize_ = _resize  # type: ignore[method-assign, assignment]
torch._C._nccl_version = lambda: 22707
torch._C._nccl_version_suffix = lambda: b""
torch._C._distributed_c10d.Logger.set_runtime_stats_and_log = lambda self: None

if os.environ.get("NCCL_COUNTS"):

    @atexit.register
    def _show_counts() -> None:
        """The calls of this process by kind."""
        for kind, count in sorted(nccl.counts().items(), key=lambda item: -item[1]):
            print(f"[rank {os.environ.get('RANK', '0')}] {count:6d} {kind}", flush=True)
