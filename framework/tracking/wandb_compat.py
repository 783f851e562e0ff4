"""What is used of Weights & Biases beyond its public interface, in one place.

`tests/tracking/test_wandb_compat.py` has a test for each part that names what moved when a release moves it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb import Run

SETTINGS_WITHOUT_METADATA: dict[str, Any] = {
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
"""Keep W&B from collecting by itself what a run's config says without secrets."""
SETTINGS_OF_WRITING: dict[str, Any] = {
    # A process that is killed loses a second of its file, no more.
    "x_transaction_log_flush_interval": 1.0,
}
DATA_DIR_VARIABLE = "WANDB_DATA_DIR"
"""Environment variable of the folder in which tables are staged until they are sent."""
INCLUDE_ONLINE_OPTION = "--include-online"
"""Of `wandb sync`: sends files of online starts too."""
SYNCED_SUFFIX = ".synced"
"""Of the marker that `wandb sync` leaves beside a file that it has sent."""
OFFLINE_PREFIX = "offline-"
"""Of the folders of offline starts."""
CORE_LOG = Path("logs") / "debug-internal.log"
"""The log of W&B's own process, in the folder of a start."""
GAVE_UP_MESSAGE = '"msg":"filestream: fatal error'
"""A line of that log after which nothing more is sent."""
_JOB_INPUTS = "_detect_and_apply_job_inputs"
"""Method of a run that has begun."""


@contextmanager
def without_job_inputs() -> Iterator[None]:
    """Keeps `wandb.init` from importing all of W&B's launch, a second and more, to find that no job gave it inputs."""
    from wandb.sdk import wandb_run

    found = getattr(wandb_run.Run, _JOB_INPUTS, None)
    # Inputs can only come from there.
    if found is None or "wandb.sdk.launch" in sys.modules:
        yield
        return
    setattr(wandb_run.Run, _JOB_INPUTS, lambda _: None)
    try:
        yield
    finally:
        setattr(wandb_run.Run, _JOB_INPUTS, found)


def data_file(run: "Run") -> Path:
    """The `.wandb` file of a run that was initialised: all that it has recorded."""
    return Path(run.dir).parent / f"run-{run.id}.wandb"


def data_files(folder: Path) -> list[Path]:
    """The `.wandb` files of all starts in a run's folder, oldest first: their folders' names have the time."""
    return sorted((folder / "wandb").glob("*run-*/*.wandb"), key=lambda path: path.parent.name.rpartition("run-")[2])


def is_offline(file: Path) -> bool:
    """Whether a `.wandb` file is of an offline start."""
    return file.parent.name.startswith(OFFLINE_PREFIX)


def is_synced(file: Path) -> bool:
    """Whether `wandb sync` has sent a `.wandb` file."""
    return file.with_name(file.name + SYNCED_SUFFIX).exists()


def gave_up(file: Path) -> bool:
    """Whether W&B has stopped sending a `.wandb` file in mid-run: it tells nobody but its own log."""
    logged = file.parent / CORE_LOG
    return logged.is_file() and GAVE_UP_MESSAGE in logged.read_text(errors="replace")


def server_url() -> str:
    """The server by W&B's settings files and environment."""
    # Imported here: most looks at runs need no W&B.
    from wandb.sdk import wandb_setup

    return wandb_setup.singleton().settings.base_url


def record_class() -> Any:
    """The protobuf message of which a `.wandb` file is a log."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    return Record
