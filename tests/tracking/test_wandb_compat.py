"""What is used of W&B beyond its public interface is still there; each test names what a release has moved."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from framework.testing.processes.forked import run_forked
from framework.tracking import wandb_compat as compat

CORE = Path(wandb.__file__).parent / "bin" / "wandb-core"


@pytest.mark.parametrize("name", [*compat.SETTINGS_WITHOUT_METADATA, *compat.SETTINGS_OF_WRITING])
def test_settings(name: str):
    assert name in wandb.Settings.model_fields, f"W&B has moved or renamed its setting {name}"


def record_offline(folder: str) -> dict[str, str]:
    """Where W&B puts what an offline start records."""
    os.environ[compat.DATA_DIR_VARIABLE] = str(Path(folder, "staged"))
    settings = wandb.Settings(**compat.SETTINGS_WITHOUT_METADATA, **compat.SETTINGS_OF_WRITING)
    run = wandb.init(id="ab12cd34", project="p", dir=folder, mode="offline", settings=settings)
    file = compat.data_file(run)
    run.log({"table": wandb.Table(columns=["a"], data=[[1]])})
    staged = [str(path) for path in Path(folder, "staged").rglob("*") if path.is_file()]
    run.finish()
    return {"file": str(file), "staged": str(len(staged))}


def modules_of_a_start(folder: str) -> list[str]:
    """Modules of W&B's launch that an offline start has loaded, and whether its method is back in its place."""
    before = wandb.sdk.wandb_run.Run._detect_and_apply_job_inputs
    with compat.without_job_inputs():
        wandb.init(id="ab12cd35", project="p", dir=folder, mode="offline").finish()
    assert wandb.sdk.wandb_run.Run._detect_and_apply_job_inputs is before
    return sorted(name for name in sys.modules if name.startswith("wandb.sdk.launch"))


@pytest.mark.slow
def test_a_start_does_not_load_what_launches_jobs(tmp_path: Path):
    found = run_forked(modules_of_a_start, 1, folder=str(tmp_path)).results[0]
    assert found == [], "W&B looks for a job's inputs elsewhere than in _detect_and_apply_job_inputs"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("offline")
    found = run_forked(record_offline, 1, folder=str(folder)).results[0]
    return Path(found["file"]), int(found["staged"])


@pytest.mark.slow
def test_the_file_of_a_start(recorded: tuple[Path, int]):
    file, _ = recorded
    folder = file.parents[2]
    assert file.is_file(), f"W&B writes its data elsewhere than {file.name} beside the folder of a start's files"
    assert compat.data_files(folder) == [file], "W&B has renamed the folders of its starts (*run-TIME-ID)"
    assert compat.is_offline(file), f"W&B's folders of offline starts begin otherwise than {compat.OFFLINE_PREFIX!r}"
    assert not compat.is_synced(file)


def test_the_folder_of_staged_tables(recorded: tuple[Path, int]):
    assert recorded[1] > 0, f"W&B stages tables elsewhere than in {compat.DATA_DIR_VARIABLE}"


def test_the_log_of_its_own_process(recorded: tuple[Path, int]):
    log = recorded[0].parent / compat.CORE_LOG
    assert log.is_file(), f"W&B's own process logs elsewhere than in {compat.CORE_LOG}"
    assert '"msg":"' in log.read_text(), f"lines of {compat.CORE_LOG} are not JSON with msg any more"
    message = compat.GAVE_UP_MESSAGE.removeprefix('"msg":"').encode()
    assert message in CORE.read_bytes(), f"W&B tells otherwise than by {message.decode()!r} that it stops sending"
    assert not compat.gave_up(recorded[0])
    log.write_text("{" + compat.GAVE_UP_MESSAGE + ': status 401"}\n')
    assert compat.gave_up(recorded[0])


@pytest.mark.slow
def test_sending_later(tmp_path: Path):
    command = [sys.executable, "-m", "wandb", "sync", "--help"]
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    option = compat.INCLUDE_ONLINE_OPTION
    assert option in told.stdout, f"`wandb sync` has no option {option} any more"
    from wandb.cli import beta_sync

    file = tmp_path / "run-ab12cd34.wandb"
    (tmp_path / f"run-ab12cd34.wandb{compat.SYNCED_SUFFIX}").touch()
    assert beta_sync._is_synced(file), f"`wandb sync` marks what it has sent otherwise than by {compat.SYNCED_SUFFIX}"
    assert compat.is_synced(file)


def test_the_server(monkeypatch: pytest.MonkeyPatch):
    from wandb.sdk import wandb_setup

    assert hasattr(wandb_setup, "singleton"), "W&B has moved wandb.sdk.wandb_setup.singleton"
    settings = SimpleNamespace(settings=SimpleNamespace(base_url="https://planted.example"))
    assert isinstance(compat.server_url(), str), "W&B's settings have no base_url any more"
    monkeypatch.setattr(wandb_setup, "singleton", lambda: settings)
    assert compat.server_url() == "https://planted.example"


def test_the_records_of_its_files(recorded: tuple[Path, int]):
    kinds = compat.record_class()().DESCRIPTOR.oneofs_by_name["record_type"].fields
    missing = {"run", "config", "history", "metric", "artifact", "files", "exit"} - {kind.name for kind in kinds}
    assert not missing, f"W&B's message Record has no {', '.join(sorted(missing))} any more"
    assert recorded[0].read_bytes()[:4] == b":W&B", "W&B's files begin otherwise than by :W&B"


def test_starts_in_their_order(tmp_path: Path):
    """By the time in their folders' names, whether they were online or not."""
    names = ["offline-run-20260103_000000-x", "run-20260102_000000-x", "offline-run-20260101_000000-x"]
    for name in names:
        (tmp_path / "wandb" / name).mkdir(parents=True)
        (tmp_path / "wandb" / name / "run-x.wandb").touch()
    assert [path.parent.name for path in compat.data_files(tmp_path)] == names[::-1]
    assert [compat.is_offline(path) for path in compat.data_files(tmp_path)] == [True, False, True]
