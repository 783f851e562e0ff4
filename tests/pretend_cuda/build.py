"""Builds the pretend device once on a machine, and runs Python processes that believe in it.

    python tests/pretend_cuda/build.py ARGUMENT...      as `python ARGUMENT...`, with GPUs

`PRETEND_GPUS=2` says how many there seem to be (1); `PRETEND_NCCL=1` gives them NCCL, and `NCCL_COUNTS=1` prints its
calls by kind.

Tensors on "cuda" live in host memory and every operator runs on the CPU; but mixed devices, a CPU generator for a CUDA
tensor and a CPU tensor in a collective of NCCL are refused as on a real GPU. Not there: Triton (`torch.compile` with
inductor), CUDA graphs, DeepSpeed, memory that ends; streams and events do nothing, and speed and the last bits of
results are the CPU's.
"""

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = {"pretend_cuda_device": HERE / "device.cpp", "pretend_cuda_nccl": HERE / "nccl.cpp"}
TORCH = "2.13"
"""It uses parts of torch that others do not promise."""


class NotHereError(Exception):
    """It cannot be built on this machine; says why."""


def build_folder() -> Path:
    """Where this machine keeps what is built for this torch and these sources."""
    digest = hashlib.sha256()
    for source in SOURCES.values():
        digest.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    return cache / "framework/pretend_cuda" / f"{version('torch')}-{python}-{digest.hexdigest()[:12]}"


def check_machine() -> str:
    """The compiler.

    Raises:
        NotHereError: a system, a torch or a machine without compiler or headers that it cannot be built on.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NotHereError(f"the pretend GPU is for Linux on x86-64, not {sys.platform} on {platform.machine()}")
    if not version("torch").startswith(f"{TORCH}."):
        raise NotHereError(f"the pretend GPU is for torch {TORCH}, not {version('torch')}")
    if (_torch() / "lib/libtorch_cuda.so").exists():
        raise NotHereError(
            f"the pretend GPU is for a build of torch without CUDA, not {version('torch')}, which has it"
        )
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise NotHereError("the pretend GPU needs a C++ compiler, g++ or CXX")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        raise NotHereError("the pretend GPU needs Python's headers")
    return compiler


def build() -> Path:
    """The folder of the two extensions, which the first call on a machine builds in a minute or two.

    Raises:
        NotHereError: see `check_machine`.
    """
    compiler, folder = check_machine(), build_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, source in SOURCES.items():
            if not (folder / f"{name}.so").is_file():
                _compile(compiler, source, folder / f"{name}.so")
    return folder


def _torch() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _compile(compiler: str, source: Path, library: Path) -> None:
    torch = _torch()
    headers = [torch / "include", torch / "include/torch/csrc/api/include", Path(sysconfig.get_paths()["include"])]
    partial = library.with_suffix(".partial")
    command = [compiler, "-O0", "-w", "-std=c++20", "-shared", "-fPIC", "-DUSE_DISTRIBUTED", "-DUSE_C10D_GLOO"]
    command += [f"-DTORCH_EXTENSION_NAME={library.stem}", str(source), *(f"-I{each}" for each in headers)]
    command += [f"-L{torch / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python", "-o", str(partial)]
    subprocess.run(command, check=True)
    partial.rename(library)


def environment(folder: Path, *, gpus: int = 1, nccl: bool = False) -> dict[str, str]:
    """Variables of a process that believes in GPUs, for it and its children.

    Args:
        folder: of `build`.
        gpus: how many there seem to be.
        nccl: whether they have NCCL.
    """
    paths = [str(HERE / "site"), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PRETEND_CUDA_BUILD": str(folder),
        "PRETEND_GPUS": str(gpus),
        "PRETEND_NCCL": str(int(nccl)),
        "PYTHONPATH": os.pathsep.join(paths),
    }


if __name__ == "__main__":
    try:
        built = build()
    except NotHereError as error:
        sys.exit(str(error))
    wanted = environment(
        built, gpus=int(os.environ.get("PRETEND_GPUS", "1")), nccl=os.environ.get("PRETEND_NCCL") == "1"
    )
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], wanted)
