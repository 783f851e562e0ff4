"""Freed memory stays with the process, as the system counts its page faults."""

import subprocess
import sys

import pytest

from framework.core.process.allocator import keep_freed_memory

FAULTS = """
import ctypes, framework
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
library.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
import resource
SIZE, pieces = 4_000_000, [0] * 20
def step():
    for at in range(20): pieces[at] = library.malloc(SIZE); library.memset(pieces[at], 1, SIZE)
    for at in range(20): library.free(pieces[at])
step(); step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Eighty megabytes a step, in pieces as activations are: twenty thousand pages."""


def faults(**environment: str) -> int:
    command = [sys.executable, "-c", FAULTS]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not keep_freed_memory({}), reason="the C library is not GNU's")
def test_a_step_takes_the_pages_of_the_one_before():
    # As the library has it: the setting named here is one of its own defaults.
    as_it_was = faults(GLIBC_TUNABLES="glibc.malloc.perturb=0")
    assert as_it_was > 50_000
    assert faults() < as_it_was / 50


@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_TRIM_THRESHOLD_": "0"},
        {"MALLOC_MMAP_THRESHOLD_": "65536"},
        {"GLIBC_TUNABLES": "glibc.rtld.nns=2:glibc.malloc.trim_threshold=0"},
    ],
)
def test_what_is_set_stays(environment: dict[str, str]):
    assert not keep_freed_memory(environment)


@pytest.mark.parametrize("error", [OSError, TypeError])
def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, error: type[Exception]):
    def no_library(name: None) -> None:
        raise error

    monkeypatch.setattr("framework.core.process.allocator.ctypes.CDLL", no_library)
    assert not keep_freed_memory({})


def test_a_library_without_the_option(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("framework.core.process.allocator.ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory({})
