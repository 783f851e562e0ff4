"""A recipe that trains in a second, and what all tests share."""

import atexit
import gc
import importlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Tensors here are tiny: more threads would only wait for each other. Read when torch is loaded.
loaded_with_threads = "torch" not in sys.modules or "OMP_NUM_THREADS" in os.environ
assert loaded_with_threads, "a plugin has loaded torch before its threads were set"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Inside of a job of SLURM the trainers here would take themselves for its tasks; and runs here use W&B as they say.
for name in [name for name in os.environ if name.startswith("SLURM_") or name == "WANDB_MODE"]:
    del os.environ[name]

# Processes of the test runner have its terminal's width; one that a shell has put in the background ignores Ctrl-C.
os.environ.pop("COLUMNS", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What killed processes and libraries leave behind goes with the tests. The folders that pytest keeps stay where they
# are, and so does the cache of compiled code.
if "PYTEST_XDIST_WORKER" not in os.environ:
    lasting = tempfile.gettempdir()
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", lasting)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{lasting}/torchinductor_{os.getuid()}")
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="framework-tests-")
    # Some tests go on as another user.
    Path(tempfile.tempdir).chmod(0o755)
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)

# A collection makes most of a million objects that stay: looking through them again and again finds nothing.
gc.disable()

LONGEST_FIRST = (
    "tests/training/test_resume.py",
    "tests/training/strategies/test_same_curve.py",
    "tests/tracking/test_wandb_run.py",
    "tests/cli/test_train.py",
    "tests/training/test_elastic.py",
    "tests/data/test_distributed.py",
    "tests/data/test_module.py",
    "tests/training/test_shutdown.py",
    "tests/gbc/execution/test_pass_memory.py",
    "tests/gbc/test_module_processes.py",
    "tests/gbc/test_module_recipes.py",
    "tests/training/callbacks/test_watchdog.py",
    "tests/cli/test_plan.py",
    "tests/launch/test_launch.py",
    "tests/gbc/training/test_module.py",
    "tests/training/callbacks/test_preemption.py",
    "tests/bench/test_attribution.py",
    "tests/test_readme.py",
    "tests/pretend_cuda/test_build.py",
    "tests/training/test_checkpoint_faults.py",
    "tests/cli/test_main.py",
    "tests/data/remote/test_cache.py",
    "tests/pra/commands/test_compare.py",
    "tests/launch/test_supervise.py",
)
"""Files of ten seconds and more, about the longest first: none is left to one test process at the end."""

RECIPE = """
run: {{dir: {run}, wandb: disabled}}
data: {{train: {shards}, validation: {shards}, images: {{size: 8, channels: 3}}, batch_size: 4}}
model:
  class_path: framework.pra.module.PRAModule
  init_args:
    architecture: {{image_size: 8, patch_size: 4, num_classes: 2, class_tokens: 2, width: 16, depth: 1, num_heads: 2,
      head_width: 16, head_depth: 1, state_size: 4, decoder_width: 16, decoder_depth: 1, encoder_width: 16,
      encoder_depth: 1, encoder_heads: 2}}
    optimizer: {{warmup_steps: 1}}
    grid: {{every_n_steps: 2, rows: 1, sampler: {{steps: 2}}}}
trainer: {{max_steps: 4, log_every_n_steps: 1, val_check_interval: 2, accelerator: cpu, enable_progress_bar: false,
  enable_model_summary: false}}
checkpoint: {{every_n_steps: 2}}
"""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Test processes are forks of one that has the large libraries loaded."""
    from framework.testing.processes import warm_python

    address = warm_python.start_server()
    for spec in specs if address else []:
        # The interpreter's own words follow.
        spec.python = shlex.join(warm_python.command(address))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--repeats", type=int, default=1, help="how often the cluster tests repeat each interruption")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    # While the hook that checks shapes loads a module of ours, what that imports of others is compiled anew, their
    # cached bytecode unread: what is large is loaded before. What only shares the tests out needs none of it.
    shares_out = session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput")
    if not shares_out and any(type(finder).__module__.startswith("jaxtyping") for finder in sys.meta_path):
        for name in ("deepspeed", "lightning.pytorch", "torch._dynamo", "transformers.modeling_utils", "wandb"):
            importlib.import_module(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Not by the order of arguments: pytest 9 sorts those that lie in one another.
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    # Collections pass over what is loaded by now.
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def warm_interpreter(tmp_path, monkeypatch) -> None:
    """What is run as `sys.executable` has the large libraries loaded, under `make test`."""
    from framework.testing.processes import warm_python

    if address := os.environ.get(warm_python.ADDRESS):
        file = tmp_path / "warm-python"
        file.write_text(f'#!/bin/sh\nexec {shlex.join(warm_python.command(address))} "$@"\n')
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))


@pytest.fixture
def recipe(tmp_path) -> Path:
    from framework.testing.images import make_image_shards

    make_image_shards(tmp_path / "data", size=8, per_class=6)
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE.format(run=tmp_path / "run", shards=tmp_path / "data" / "shards"))
    return path
