"""A run's loggers."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from framework.core.errors import ConfigError
from framework.tracking.loggers import RunConfig, make_loggers, wandb_mode
from framework.tracking.wandb_run import TrackedRun


def wandb_of(run_dir: Path, **options: str) -> WandbLogger:
    [_, wandb] = make_loggers(RunConfig(dir=str(run_dir), **options))
    assert isinstance(wandb, WandbLogger)
    return wandb


def test_wandb_is_offline_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb = wandb_of(tmp_path / "digits")
    wandb.log_metrics({"loss/total": 2.5}, step=3)
    run = wandb.experiment
    try:
        assert run.offline
        assert (run.id, run.name, run.project) == (wandb.version, "digits", "framework")
        assert Path(run.dir).is_relative_to(tmp_path / "digits" / "wandb")
    finally:
        run.finish()
    assert len(list((tmp_path / "digits" / "wandb").glob(f"offline-run-*/run-{wandb.version}.wandb"))) == 1


def test_a_run_keeps_its_id_and_another_has_another(tmp_path: Path):
    first = wandb_of(tmp_path / "a").version
    assert first
    assert wandb_of(tmp_path / "a").version == first
    assert wandb_of(tmp_path / "a", wandb="online").version == first
    assert wandb_of(tmp_path / "b").version != first
    assert (tmp_path / "a" / "wandb-id").read_text().strip() == first


def test_an_id_from_the_environment_names_a_new_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("WANDB_RUN_ID", "mine-1.2")
    assert wandb_of(tmp_path / "a").version == "mine-1.2"
    monkeypatch.setenv("WANDB_RUN_ID", "other")
    with caplog.at_level("INFO"):
        assert wandb_of(tmp_path / "a").version == "mine-1.2"
    assert caplog.messages == [
        f"WANDB_RUN_ID says other, and {tmp_path / 'a'} goes on as mine-1.2: unset it, or choose another run.dir"
    ]
    monkeypatch.setenv("WANDB_RUN_ID", "team/run 1")
    with pytest.raises(ConfigError, match=r"WANDB_RUN_ID team/run 1 has '/': use letters"):
        wandb_of(tmp_path / "c")
    assert not (tmp_path / "c/wandb-id").exists()


def test_of_ranks_that_start_together_the_first_names_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert wandb_of(tmp_path / "a").version
    assert not (tmp_path / "a/wandb-id").exists()
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    first = wandb_of(tmp_path / "a").version
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert wandb_of(tmp_path / "a").version == first


def test_an_id_that_a_full_disk_has_cut_off_is_chosen_anew(tmp_path: Path):
    (tmp_path / "wandb-id").touch()
    assert wandb_of(tmp_path).version


def test_disabled_leaves_no_trace_of_wandb(tmp_path: Path):
    [only] = make_loggers(RunConfig(dir=str(tmp_path / "run"), wandb="disabled"))
    assert isinstance(only, CSVLogger)
    assert not (tmp_path / "run").exists()


def test_metrics_are_on_the_disk_as_soon_as_they_are_logged(tmp_path: Path):
    [csv] = make_loggers(RunConfig(dir=str(tmp_path), wandb="disabled"))
    csv.log_metrics({"loss/total": 2.5}, step=3)
    assert (tmp_path / "metrics" / "version_0" / "metrics.csv").read_text().splitlines() == ["loss/total,step", "2.5,3"]


def test_every_start_of_a_run_has_metrics_of_its_own(tmp_path: Path):
    for value in (1.0, 2.0):
        [csv] = make_loggers(RunConfig(dir=str(tmp_path), wandb="disabled"))
        csv.log_metrics({"loss/total": value}, step=0)
        csv.save()
    assert sorted(path.name for path in (tmp_path / "metrics").iterdir()) == ["version_0", "version_1"]


@pytest.mark.parametrize(
    ("said", "recipe", "mode"),
    [
        ("offline", "online", "offline"),
        ("dryrun", "online", "offline"),
        ("online", "offline", "online"),
        ("disabled", "online", "disabled"),
        ("disabled", "offline", "disabled"),
        # A recipe that does not use it is not made to.
        ("online", "disabled", "disabled"),
        ("", "online", "online"),
    ],
)
def test_wandb_mode_of_the_environment_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, recipe: Any, mode: str
):
    monkeypatch.setenv("WANDB_MODE", said)
    config = RunConfig(dir=str(tmp_path / "run"), wandb=recipe)
    assert wandb_mode(config) == mode
    tracked = [logger for logger in make_loggers(config) if isinstance(logger, TrackedRun)]
    assert [logger._online for logger in tracked] == ([] if mode == "disabled" else [mode == "online"])
    assert (tmp_path / "run" / "wandb-id").exists() == (mode != "disabled")


def test_a_mode_that_wandb_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(ConfigError, match="WANDB_MODE is of: set it to one of offline, online, disabled"):
        make_loggers(RunConfig(dir=str(tmp_path)))


def test_names_that_the_recipe_does_not_give_are_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_NAME", "called")
    chosen = wandb_of(tmp_path / "a", project="ours", name="mine")
    taken = wandb_of(tmp_path / "a")
    assert [(each._project, each._name) for each in (chosen, taken)] == [("ours", "mine"), ("theirs", "called")]


@pytest.mark.parametrize("folder", ["", "s3://bucket/run", "~nobody-of-that-name/x", "$NOWHERE/x"])
def test_what_is_not_a_folder_is_refused(folder: str):
    with pytest.raises(ConfigError, match=r"run\.dir"):
        RunConfig(dir=folder)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        (" ", "is not a folder"),
        ("a\nb", "has signs that end a line or are none"),
        ("a\x1b[31mb", "has signs that end a line or are none"),
        ("a\0b", "has signs that end a line or are none"),
        ("a\u2028b", "has signs that end a line or are none"),
        ("runs/$USER/x", r"has \$USER, which is read at the beginning alone"),
        ("runs/${USER}", r"has \$\{USER\}, which is read at the beginning alone"),
        (__file__, "is a file: give a folder"),
    ],
)
def test_a_folder_that_cannot_be(folder: str, words: str):
    with pytest.raises(ConfigError, match=words):
        RunConfig(dir=folder)


@pytest.mark.parametrize("folder", ["a b", "-x", "a'b\"c", "100%", "[x]{}", "5$", "grün"])
def test_a_folder_of_an_odd_name(folder: str):
    assert RunConfig(dir=folder).dir == folder
