"""A warm Python does what a new interpreter would, with libraries loaded."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from framework.testing.processes import warm_python

TELL = """
import os, signal, sys
print(sys.stdin.readline().strip(), sys.argv, os.getcwd(), os.environ["TOLD"], __name__, "torch" in sys.modules)
print("framework" in sys.modules, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
sys.exit(7)
"""


@pytest.fixture(scope="module")
def address() -> str:
    """Of the server that the test processes come from, or one of its own where there is one process."""
    address = os.environ.get(warm_python.ADDRESS) or warm_python.start_server()
    return address or pytest.skip("a GPU, or not Linux")


@pytest.mark.slow
def test_code_has_streams_arguments_variables_a_folder_and_an_exit_code(address: str, tmp_path: Path):
    done = subprocess.run(
        warm_python.command(address, "-u", "-c", TELL, "x"),
        input="hello\nand more\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TOLD": "so"},
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == [f"hello ['-c', 'x'] {tmp_path} so __main__ True", "False True"]


@pytest.mark.slow
def test_a_module_runs_as_the_main_one_and_errors_are_told(address: str):
    told = subprocess.run(
        warm_python.command(address, "-m", "json.tool"), input='{"a": 1}', capture_output=True, text=True
    )
    assert (told.returncode, told.stdout) == (0, '{\n    "a": 1\n}\n')
    failed = subprocess.run(warm_python.command(address, "-c", "1 / 0"), capture_output=True, text=True)
    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stderr
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run(warm_python.command(address, "-c", killed)).returncode == 128 + signal.SIGKILL


@pytest.mark.slow
def test_one_that_ends_leaves_the_others_their_temporary_folders(address: str):
    """W&B makes one when it is loaded, and removes it at its process's end."""
    code = "from pathlib import Path; from wandb.sdk.data_types._private import MEDIA_TMP as folder; "
    code += "print(Path(folder.name).is_dir())"
    for _ in range(2):
        assert subprocess.run(warm_python.command(address, "-c", code), capture_output=True).stdout == b"True\n"


@pytest.mark.slow
def test_it_ends_with_its_client(address: str):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen(warm_python.command(address, "-c", code), stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        client.kill()
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < until
        time.sleep(0.01)
