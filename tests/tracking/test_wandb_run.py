"""W&B over the life of a run: killed, resumed, sent later; unreachable, gone in mid-run; and no secret anywhere.

Every start is a process of its own, as W&B's client is one for each process.
"""

import csv
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from framework.cli import runs
from framework.cli.main import main
from framework.report.run_summary import read_run, unsent_files
from framework.testing.processes.forked import run_forked
from framework.testing.servers.wandb_files import WandbFile, read_wandb_file, read_wandb_files
from framework.testing.servers.wandb_server import serve_wandb
from framework.tracking.loggers import RunConfig, finish_loggers, make_loggers
from framework.tracking.metric_files import merged_steps
from framework.tracking.restarts import read_restarts
from framework.tracking.run_folder import UNSENT, saved_wandb_id
from framework.tracking.secrets import REMOVED
from framework.tracking.wandb_run import GLOBAL_STEP, RESTART, TABLE_ROWS, TrackedRun
from framework.training.callbacks.curves import Curves

SECRETS = {
    "WANDB_API_KEY": "planted0wandb0key0" + "0" * 22,
    "AWS_SECRET_ACCESS_KEY": "planted1aws1secret",
    "IN_OPTIONS": "planted2in2options",
    "IN_URL": "planted3in3url",
    "IN_COMMAND": "planted4in4command",
}
PATIENCE = {"init_seconds": 2.0, "finish_seconds": 2.0}


def fit(recipe: str, options: list[str], environment: dict[str, str], kill_at: int = 0) -> None:
    """`framework fit` in this process; killed in mid-step if asked for."""
    os.environ.update(environment)
    for name, value in PATIENCE.items():
        setattr(TrackedRun, name, value)

    def kill(self: Curves, trainer: Any, *_: Any) -> None:
        if trainer.global_step == kill_at:
            # What W&B's own process has not written within a second is lost with it.
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)

    Curves.on_train_batch_end = kill
    sys.argv = ["framework", "fit", "--config", recipe, *options, "--token", SECRETS["IN_COMMAND"]]
    main(["fit", "--config", recipe, *options])


def steps(file: WandbFile, metric: str = "loss/total") -> list[tuple[int, int]]:
    """(restart, step) of the rows that have a metric."""
    return [(row[RESTART], row[GLOBAL_STEP]) for row in file.history if metric in row]


def files_with(folder: Path, *texts: str) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and any(text.encode() in path.read_bytes() for text in texts):
            found.append(str(path.relative_to(folder)))
    return found


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps that was killed in its seventh and went on from its fourth, with secrets all around."""
    from framework.testing.images import make_image_shards

    folder = tmp_path_factory.mktemp("killed")
    make_image_shards(folder / "data", size=8, per_class=6)
    recipe = folder / "tiny.yaml"
    text = (Path(__file__).parents[1] / "conftest.py").read_text().partition('RECIPE = """')[2].partition('"""')[0]
    recipe.write_text(text.format(run=folder / "run", shards=folder / "data" / "shards"))
    remote = f"{{key: {SECRETS['IN_OPTIONS']}, endpoint_url: 'https://me:{SECRETS['IN_URL']}@host'}}"
    options = ["--run.wandb", "offline", "--run.histogram_every_n_steps", "4", "--run.artifacts", "true"]
    options += ["--trainer.max_steps", "8", "--checkpoint.every_n_steps", "4", "--checkpoint.asynchronous", "false"]
    options += ["--data.remote.storage_options", remote]
    options += ["--run.name", f"https://me:{SECRETS['IN_URL']}@host/run"]
    arguments = {"recipe": str(recipe), "options": options, "environment": SECRETS}
    killed = run_forked(fit, 1, may_fail=True, kill_at=7, **arguments)
    assert killed.exitcodes == [-signal.SIGKILL], killed.output
    run_forked(fit, 1, **arguments)
    return folder / "run"


@pytest.mark.slow
def test_a_killed_and_resumed_run_is_one_run_with_every_step(killed_and_resumed: Path):
    first, second = read_wandb_files(killed_and_resumed)
    assert {first.run_id, second.run_id} == {saved_wandb_id(killed_and_resumed)}
    assert steps(first) == [(0, step) for step in range(6)]
    assert steps(second) == [(1, step) for step in range(4, 8)]
    assert first.axes == second.axes == {GLOBAL_STEP: "", "*": GLOBAL_STEP}
    assert (first.complete, second.complete) == (False, True)
    for row in [*first.history, *second.history]:
        assert {RESTART, GLOBAL_STEP} <= row.keys()


def test_the_csv_has_every_step_once(killed_and_resumed: Path):
    rows = [row for row in merged_steps(killed_and_resumed) if "loss/total" in row.values]
    assert [(row.restart, row.step) for row in rows] == [(int(step >= 4), step) for step in range(8)]
    with (killed_and_resumed / "metrics.csv").open() as stream:
        assert [int(row["step"]) for row in csv.DictReader(stream) if row["loss/total"]] == list(range(8))
    begun = [(restart.start.step, restart.end and restart.end.outcome) for restart in read_restarts(killed_and_resumed)]
    assert begun == [(0, None), (4, "finished")]


def test_images_tables_histograms_and_manifests_are_there(killed_and_resumed: Path):
    first, second = read_wandb_files(killed_and_resumed)
    images = [row[GLOBAL_STEP] for file in (first, second) for row in file.history if "samples._type" in row]
    assert images == [2, 4, 6, 6, 8]
    for row in second.history:
        if "samples.path" in row:
            assert list(killed_and_resumed.glob(f"wandb/*/files/{row['samples.path']}"))
    assert [row["samples_over_time.nrows"] for row in second.history if "samples_over_time.nrows" in row] == [4]
    [histogram] = [row for row in first.history if "weights/transformer._type" in row]
    assert histogram[GLOBAL_STEP] == 3
    assert sum(histogram["gradients/transformer.values"]) == sum(histogram["weights/transformer.values"]) > 1000
    kinds = [kind for _, kind, _ in second.artifacts]
    assert sorted(set(kinds)) == ["checkpoint", "run_table", "shards"]
    assert [data["step"] for _, kind, data in second.artifacts if kind == "checkpoint"] == [4, 8]


def test_the_config_says_what_made_the_run(killed_and_resumed: Path):
    config = read_wandb_files(killed_and_resumed)[-1].config
    assert config["trainer"]["max_steps"] == 8
    made = config["provenance"]
    assert made["command"].startswith("framework fit --config ")
    assert made["packages"].keys() >= {"torch", "lightning"}
    assert made.keys() >= {"git_revision", "container", "host", "python", "device"}


def test_no_secret_is_in_any_file(killed_and_resumed: Path):
    assert files_with(killed_and_resumed, *SECRETS.values()) == []
    assert len(files_with(killed_and_resumed, REMOVED)) > 5
    options = f"endpoint_url: https://{REMOVED}@host"
    assert options in (killed_and_resumed / "recipe.yaml").read_text()
    # What W&B takes by itself.
    assert not [path for path in killed_and_resumed.rglob("*") if path.name in ("wandb-metadata.json", "diff.patch")]
    assert not list(killed_and_resumed.glob("wandb/*/files/requirements.txt"))


@pytest.mark.slow
def test_a_saved_recipe_asks_for_its_secrets(killed_and_resumed: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["validate", "--config", str(killed_and_resumed / "recipe.yaml")])
    assert "was removed from the saved recipe" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_recorded_offline_is_sent_once_as_one_run(
    killed_and_resumed: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WANDB_API_KEY", SECRETS["WANDB_API_KEY"])
    assert len(read_run(killed_and_resumed).unsent) == 2
    with serve_wandb() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        runs.sync(str(killed_and_resumed.parent))
        told = capfd.readouterr().err
        assert told.count("sent ") == 2
        assert "offline-run" in told
        rows = server.rows(saved_wandb_id(killed_and_resumed) or "")
        # Every row of both starts, one after the other: nothing is overwritten.
        assert [row["_step"] for row in rows] == list(range(len(rows)))
        losses = [(row[RESTART], row[GLOBAL_STEP]) for row in rows if "loss/total" in row]
        assert losses == [(0, step) for step in range(6)] + [(1, step) for step in range(4, 8)]
        received = len(server.bodies)
        runs.sync(str(killed_and_resumed.parent))
        assert "nothing to send" in capfd.readouterr().err
        assert len(server.bodies) == received
        assert not [body for body in server.bodies if any(secret in body for secret in SECRETS.values())]


@pytest.mark.slow
def test_a_dead_server_at_the_start_harms_nothing(recipe: Path, tmp_path: Path):
    with serve_wandb() as server:
        pass
    environment = {"WANDB_API_KEY": SECRETS["WANDB_API_KEY"], "WANDB_BASE_URL": server.url}
    options = ["--run.wandb", "online"]
    ended = run_forked(fit, 1, recipe=str(recipe), options=options, environment=environment)
    assert "Weights & Biases cannot be reached" in ended.output
    assert "framework runs sync" in ended.output
    run = read_run(tmp_path / "run")
    assert (run.state, run.step) == ("finished", 4)
    [file] = run.unsent
    assert file.parent.name.startswith("offline-run")
    assert steps(read_wandb_file(file)) == [(0, step) for step in range(4)]


def die_in_mid_run(folder: str, key: str) -> dict[str, Any]:
    """Logs to a server that goes away after the first row; what is left."""
    os.environ |= {"WANDB_API_KEY": key, "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.2"}
    TrackedRun.finish_seconds = 1.0
    loggers = make_loggers(RunConfig(dir=folder, wandb="online"))
    with serve_wandb() as server:
        os.environ["WANDB_BASE_URL"] = server.url
        loggers[-1].log_metrics({"loss": 1.0}, 0)
        while not server.history.get(str(loggers[-1].version)):
            time.sleep(0.05)
    start = time.monotonic()
    for step in range(1, 6):
        loggers[-1].log_metrics({"loss": 1.0}, step)
    logging_seconds = time.monotonic() - start
    finish_loggers(loggers)
    return {"logging": logging_seconds, "all": time.monotonic() - start}


@pytest.mark.slow
def test_a_server_that_goes_away_in_mid_run_harms_nothing(tmp_path: Path):
    ended = run_forked(die_in_mid_run, 1, folder=str(tmp_path / "run"), key=SECRETS["WANDB_API_KEY"])
    assert ended.results[0]["logging"] < 5
    assert ended.results[0]["all"] < 60
    assert "did not get everything" in ended.output
    [file] = unsent_files(tmp_path / "run")
    assert file.parent.name.startswith("run-")
    assert file.with_name(file.name + UNSENT).exists()
    [recorded] = read_wandb_files(tmp_path / "run")
    assert [row[GLOBAL_STEP] for row in recorded.history if RESTART in row] == [0, 1, 2, 3, 4, 5]


def lose_the_service(folder: str) -> None:
    """W&B's own process is killed; logging goes on."""
    loggers = make_loggers(RunConfig(dir=folder))
    loggers[-1].log_metrics({"loss": 1.0}, 0)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        fields = entry.read_text().rpartition(") ")
        if "wandb-core" in fields[0] and fields[2].split()[1] == str(os.getpid()):
            os.kill(int(entry.parent.name), signal.SIGKILL)
    for step in range(1, 200):
        loggers[-1].log_metrics({"loss": 1.0}, step)
        time.sleep(0.005)
    loggers[-1].log_hyperparams({"a": 1})
    finish_loggers(loggers)


@pytest.mark.slow
def test_a_client_that_dies_harms_nothing(tmp_path: Path):
    ended = run_forked(lose_the_service, 1, folder=str(tmp_path / "run"))
    assert ended.output.count("Weights & Biases failed") == 1, ended.output


def without_an_account(folder: str) -> None:
    for name in ("WANDB_API_KEY", "NETRC"):
        os.environ.pop(name, None)
    os.environ.update(HOME=folder, NETRC=f"{folder}/none")
    loggers = make_loggers(RunConfig(dir=f"{folder}/run", wandb="online"))
    loggers[-1].log_metrics({"loss": 1.0}, 0)
    finish_loggers(loggers)


@pytest.mark.slow
def test_online_without_an_account_is_recorded_offline(tmp_path: Path):
    ended = run_forked(without_an_account, 1, folder=str(tmp_path))
    assert "no API key: set WANDB_API_KEY" in ended.output
    assert len(unsent_files(tmp_path / "run")) == 1


def many_images(folder: str) -> None:
    loggers = make_loggers(RunConfig(dir=folder))
    tracked = loggers[-1]
    assert isinstance(tracked, TrackedRun)
    from PIL import Image

    for step in range(1, 21):
        path = Path(folder, "samples", f"step={step:08d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), step).save(path)
        tracked.log_image_file("samples", path, step)
    finish_loggers(loggers)


@pytest.mark.slow
def test_tables_do_not_grow_without_bound(tmp_path: Path):
    run_forked(many_images, 1, folder=str(tmp_path / "run"))
    [recorded] = read_wandb_files(tmp_path / "run")
    tables = [row["samples_over_time.nrows"] for row in recorded.history if "samples_over_time.nrows" in row]
    assert tables == [1, 2, 4, 8, TABLE_ROWS, TABLE_ROWS]
    assert len([row for row in recorded.history if "samples._type" in row]) == 20


def a_growing_table(folder: str) -> None:
    loggers = make_loggers(RunConfig(dir=folder))
    tracked = loggers[-1]
    assert isinstance(tracked, TrackedRun)
    from PIL import Image

    for count in range(1, 12):
        rows = [[step, "hotel", 0.5 / (step + 1), step % 2 == 0] for step in range(count)]
        tracked.log_growing_table("agents/prompts", ("step", "agent", "loss", "kept"), rows, count)
    tracked.log_page("agents/page", "<!doctype html><html><body>b</body></html>", 3)
    tracked.log_figure("agents/graph", Image.new("RGB", (4, 2)), 3)
    finish_loggers(loggers)


@pytest.mark.slow
def test_tables_pages_and_drawings(tmp_path: Path):
    run_forked(a_growing_table, 1, folder=str(tmp_path / "run"))
    [recorded] = read_wandb_files(tmp_path / "run")
    tables = [row["agents/prompts.nrows"] for row in recorded.history if "agents/prompts.nrows" in row]
    assert tables == [1, 2, 4, 8, 11]
    found = {row[GLOBAL_STEP]: row for row in recorded.history}
    assert found[3]["agents/graph.width"] == 4
    [page] = (tmp_path / "run").glob("wandb/offline*/files/media/html/agents/page_*.html")
    # W&B would put an address of its own into it.
    assert page.read_text() == "<!doctype html><html><body>b</body></html>"
