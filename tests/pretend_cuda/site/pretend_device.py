"""A CPU build of torch that believes it has GPUs, from its import on. What a real one refuses, this refuses too.

`device.cpp` has the tensors and the operators; here is what `torch.cuda` says, in place of what asks the driver.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BUILD = Path(os.environ["PRETEND_CUDA_BUILD"])
NUM_DEVICES = int(os.environ.get("PRETEND_GPUS", "1"))
MEMORY = 140 << 30

_spec = importlib.util.find_spec("torch")
assert _spec is not None
assert _spec.origin is not None
_libraries = Path(_spec.origin).parent / "lib"
# The device registers itself before torch looks for one.
ctypes.CDLL(str(_libraries / "libtorch_global_deps.so"), mode=ctypes.RTLD_GLOBAL)
for _name in ("libc10.so", "libtorch_cpu.so", "libtorch.so", "libtorch_python.so"):
    ctypes.CDLL(str(_libraries / _name))
ctypes.CDLL(str(BUILD / "pretend_cuda_device.so"))
sys.path.insert(0, str(BUILD))

import torch  # noqa: E402

# They ask for a GPU when they are imported, and would find half of one.
for _name in (
    "torch._dynamo",
    "torch._inductor.utils",
    "torch._utils",
    "torch.amp.autocast_mode",
    "torch.cuda.amp.common",
):
    importlib.import_module(_name)

device = importlib.import_module("pretend_cuda_device")


class Properties:
    """As of an H200."""

    name = "NVIDIA H200"
    major, minor = 9, 0
    total_memory = MEMORY
    multi_processor_count = 132
    gcnArchName = ""
    is_integrated = 0
    max_threads_per_multi_processor = 2048
    warp_size = 32
    regs_per_multiprocessor = 65536
    L2_cache_size = 60 << 20
    shared_memory_per_block = 49152
    shared_memory_per_block_optin = 232448
    shared_memory_per_multiprocessor = 233472


class Stream:
    """Does nothing: all work is done when it is asked for."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.device = torch.device("cuda", index_of(device))
        self.device_index, self.stream_id, self.cuda_stream, self.priority = self.device.index, 0, 0, priority

    def wait_stream(self, stream: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> Any:
        return event or Event()

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> bool:
        return False


class Event:
    """Has always happened."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def wait(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: Any) -> float:
        return 1.0


class Runtime:
    """`torch.cuda.cudart()`."""

    def cudaHostRegister(self, *_: int) -> int:
        return 0

    def cudaHostUnregister(self, *_: int) -> int:
        return 0


def index_of(which: Any = None) -> int:
    """The number of a device in any of the forms that torch takes."""
    if isinstance(which, int):
        return which if which >= 0 else device.current_device()
    index = None if which is None else torch.device(which).index
    return device.current_device() if index is None else index


@contextlib.contextmanager
def on_device(which: Any) -> Iterator[None]:
    """`torch.cuda.device`."""
    before = device.current_device()
    device.set_device(index_of(which))
    try:
        yield
    finally:
        device.set_device(before)


@contextlib.contextmanager
def on_stream(_: Any) -> Iterator[None]:
    """`torch.cuda.stream`."""
    yield


_DEFAULT_STREAM = Stream()
_STATE = torch.zeros(16, dtype=torch.uint8)

REPLACED: dict[str, Any] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: NUM_DEVICES,
    "_is_compiled": lambda: True,
    "_lazy_init": lambda: None,
    "init": lambda: None,
    "_is_in_bad_fork": lambda: False,
    "current_device": lambda: device.current_device(),
    "set_device": lambda which: device.set_device(index_of(which)),
    "device": on_device,
    "_exchange_device": lambda which: 0,
    "_maybe_exchange_device": lambda which: 0,
    "get_device_name": lambda which=None: Properties.name,
    "get_device_properties": lambda which=None: Properties(),
    "get_device_capability": lambda which=None: (Properties.major, Properties.minor),
    "is_bf16_supported": lambda *_, **__: True,
    "synchronize": lambda which=None: None,
    "Stream": Stream,
    "Event": Event,
    "stream": on_stream,
    "set_stream": lambda stream: None,
    "current_stream": lambda which=None: _DEFAULT_STREAM,
    "default_stream": lambda which=None: _DEFAULT_STREAM,
    "is_current_stream_capturing": lambda: False,
    "memory_allocated": lambda which=None: device.allocated(),
    "max_memory_allocated": lambda which=None: device.peak(),
    "memory_reserved": lambda which=None: device.allocated(),
    "max_memory_reserved": lambda which=None: device.peak(),
    "reset_peak_memory_stats": lambda which=None: device.reset_peak(),
    "memory_stats": lambda which=None: {},
    "memory_summary": lambda *_, **__: "",
    "mem_get_info": lambda which=None: (MEMORY - device.allocated(), MEMORY),
    "empty_cache": lambda: None,
    "ipc_collect": lambda: None,
    "cudart": Runtime,
    "manual_seed": lambda seed: torch.default_generator,
    "manual_seed_all": lambda seed: None,
    "get_rng_state": lambda which=None: _STATE.clone(),
    "set_rng_state": lambda state, which=None: None,
    "get_rng_state_all": lambda: [_STATE.clone()],
    "set_rng_state_all": lambda states: None,
}

for _name, _value in REPLACED.items():
    setattr(torch.cuda, _name, _value)
torch.cuda.streams.Stream, torch.cuda.streams.Event = Stream, Event  # type: ignore[misc, assignment]
torch.cuda.amp.common.amp_definitely_not_available = lambda: False
torch.backends.cuda.is_built = lambda: True
torch._C._cuda_isCurrentStreamCapturing = lambda: False
torch.version.cuda = "13.0"
