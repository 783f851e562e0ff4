"""The tests that need a GPU, and some that do not, in processes that believe that they have one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretend_cuda.build import NotHereError, build, check_machine, environment

ROOT = Path(__file__).parents[2]
TESTS = ["tests/pra/test_gpu.py", "tests/gbc/test_gpu.py", "tests/training/test_gpu.py"]
QUIET = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-x", "--show-capture=no", "--tb=short"]

REFUSED = """
import torch
assert torch.cuda.is_available() and torch.ones(2, device="cuda").is_cuda
ones = torch.ones(2, device="cuda")
cases = {
    "mixed devices": lambda: ones + torch.ones(2),
    "a generator of the CPU": lambda: torch.rand(2, device="cuda", generator=torch.Generator()),
    "an index of a GPU into a CPU tensor": lambda: torch.ones(2)[torch.zeros(1, dtype=torch.long, device="cuda")],
}
for name, case in cases.items():
    try:
        case()
    except RuntimeError as error:
        assert "device" in str(error), (name, error)
    else:
        raise SystemExit(f"{name}: not refused")
assert (ones * 2).cpu().tolist() == [2.0, 2.0]
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return build()
    except NotHereError as error:
        pytest.skip(str(error))


def run(folder: Path, *arguments: str, gpus: int = 1, nccl: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(folder, gpus=gpus, nccl=nccl),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_a_gpu_refuses_is_refused(folder: Path):
    run(folder, "-c", REFUSED)


@pytest.mark.slow
def test_the_tests_that_need_a_gpu(folder: Path):
    expensive = "compiled or two_gpus or goes_on or is_captured"
    output = run(folder, "-m", "pytest", *QUIET, "-m", "gpu", "-k", f"not ({expensive})", *TESTS)
    assert "skipped" not in output


@pytest.mark.large
def test_more_of_the_tests_that_need_a_gpu(folder: Path):
    files = ["tests/gbc/test_gpu.py", "tests/data/loading/test_device_copies.py", "tests/bench/gpu/test_waits.py"]
    output = run(folder, "-m", "pytest", *QUIET, "-m", "gpu", "-k", "goes_on or device_copies or waits", *files)
    assert "skipped" not in output


@pytest.mark.large
def test_the_tests_that_need_two_gpus(folder: Path):
    output = run(folder, "-m", "pytest", *QUIET, "-m", "gpu", "-k", "two_gpus", *TESTS, gpus=2, nccl=True)
    assert "skipped" not in output


@pytest.mark.large
def test_runs_on_the_cpu_of_a_machine_that_has_a_gpu(folder: Path):
    # Lightning warns of the idle GPU; nothing is pinned, and no state of it saved.
    files = ["tests/training/callbacks/test_random_state.py", "tests/data/test_module.py", "tests/pra/test_module.py"]
    run(folder, "-m", "pytest", *QUIET, "-m", "not slow", *files)


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NotHereError, match="the pretend GPU"):
        check_machine()
