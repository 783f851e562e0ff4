"""torch's private parts are where we use them, and do what we use them for."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from framework.core.compat.torch_compat import (
    CAST,
    FakeTensorMode,
    TorchDispatchMode,
    default_store,
    onednn_product,
    packed_weight,
    packs_weights,
    shared_storage,
    storage_key,
    version_of,
    worker_pids,
)
from tests.core.compat.found import find, moved

PRIVATE = {
    "torch._subclasses.fake_tensor:FakeTensorMode": "plan a step without computing it",
    "torch.utils._python_dispatch:TorchDispatchMode": "count the copies that autocast makes",
    "torch:ops.aten._to_copy.default": "know the copies that autocast makes",
    "torch:ops.aten._local_scalar_dense": "count what the host waits for",
    "torch:ops.aten._unique2": "count what the host waits for",
    "torch:ops.mkldnn._linear_pointwise": "multiply by oneDNN",
    "torch:ops.mkldnn._reorder_linear_weight": "lay weights out for it",
    "torch:ops.mkldnn._is_mkldnn_bf16_supported": "know where its bfloat16 is fast",
    "torch._dynamo:config.optimize_ddp": "compile blocks under DDP without cutting them",
    "torch:Tensor._version": "know that weights have changed since a prompt was read",
    "torch:UntypedStorage._cdata": "tell storages of fake tensors apart",
    "torch:UntypedStorage._new_shared": "hand batches from workers without a copy",
    "torch.distributed.distributed_c10d:_get_default_store": "send the watchdog's signs of life",
    "torch.distributed.distributed_c10d:_set_pg_timeout": "give the groups of a mesh the time-out of the default one",
    "torch.utils.data:DataLoader._iterator": "measure the memory of workers",
    "torch.utils.data.dataloader:_MultiProcessingDataLoaderIter._workers": "measure the memory of workers",
}
ON_INSTANCES = {"DataLoader._iterator", "_MultiProcessingDataLoaderIter._workers"}


@pytest.mark.parametrize("path", [path for path in PRIVATE if path.partition(":")[2] not in ON_INSTANCES])
def test_it_is_where_we_use_it(path: str):
    find("torch", path, PRIVATE[path])


def test_the_copy_of_autocast_is_seen_and_fake_tensors_have_storages():
    copies = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is CAST:
                copies.append(storage_key(args[0]))
            return func(*args, **(kwargs or {}))

    with FakeTensorMode():
        one, other = torch.ones(2), torch.ones(2)
        with Copies():
            one.to(torch.bfloat16)
        use = "know the copies that autocast makes"
        assert copies == [storage_key(one)], moved("torch", "aten._to_copy", use)
        assert storage_key(one) != storage_key(other)


def fill(memory: torch.Tensor) -> None:
    memory.fill_(7)


def test_a_change_in_place_changes_the_version():
    weight = torch.nn.Parameter(torch.zeros(2))
    before = version_of(weight)
    with torch.no_grad():
        weight.add_(1)
    assert version_of(weight) > before, moved("Tensor._version")
    with torch.inference_mode():
        assert version_of(torch.zeros(1)) == 0


def test_shared_memory_is_shared():
    memory = torch.empty(0, dtype=torch.uint8).set_(shared_storage(16))
    assert memory.is_shared()
    process = multiprocessing.get_context("fork").Process(target=fill, args=(memory,))
    process.start()
    process.join()
    assert memory.tolist() == [7] * 16, moved("torch", "UntypedStorage._new_shared", "share memory with workers")


def test_a_connection_to_the_store_of_the_process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        dist.PrefixStore("a", default_store()).set("key", "value")
        assert dist.PrefixStore("a", default_store()).get("key") == b"value"
    finally:
        dist.destroy_process_group()


def test_processes_of_a_loader():
    loader = DataLoader(list(range(4)), num_workers=1, persistent_workers=True)  # type: ignore[arg-type]
    iterator = iter(loader)
    assert getattr(loader, "_iterator", None) is iterator, moved("torch", "DataLoader._iterator", "measure workers")
    assert hasattr(iterator, "_workers"), moved("torch", "DataLoader's iterator's _workers", "measure workers")
    next(iterator)
    assert set(worker_pids(loader)) <= {child.pid for child in multiprocessing.active_children()}
    assert len(worker_pids(loader)) == 1


@pytest.mark.skipif(not packs_weights(torch.float32), reason="torch without oneDNN")
def test_packed_weights_need_oneDNN_s_own_products():
    # What moves here: the names of torch.ops.mkldnn, and that a packed weight is accepted by them alone.
    weight, bias, x = torch.randn(24, 40), torch.randn(24), torch.randn(2, 3, 40)
    packed = packed_weight(weight)
    assert packed.is_mkldnn
    expected = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(onednn_product(x, packed, bias), expected, rtol=1e-5, atol=1e-5)
