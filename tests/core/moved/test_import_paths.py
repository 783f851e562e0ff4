"""Import paths of before a move: translated in what runs have kept, refused with the new one in what users give."""

import json
from pathlib import Path

import pytest
import yaml

import framework
from framework.cli.main import main
from framework.core.errors import ConfigError
from framework.core.imports import import_object
from framework.core.moved import import_paths as moved
from framework.core.moved.import_paths import current_path, current_text, refuse_moved
from framework.gbc.graph.yaml_config import read_yaml
from framework.report.run_summary import read_run
from framework.testing.run_folders import make_run_folder
from framework.training.checkpoint.provenance import recipe_changes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("framework.gbc.module.GBCModule", "framework.gbc.training.module.GBCModule"),
        ("framework.gbc.language.LanguageModelModule", "framework.language_model.module.LanguageModelModule"),
        (
            "framework.gbc.environments.multiwoz.tracking:change_targets",
            "framework.gbc.environments.multiwoz.state_tracking.turns:change_targets",
        ),
        (
            "framework.gbc.environments.multiwoz.database.Database",
            "framework.gbc.environments.multiwoz.dataset.database.Database",
        ),
    ],
)
def test_old_paths_lead_to_what_they_named(old: str, new: str):
    assert current_path(old) == new
    import_object(new)
    assert current_path(new) == new


@pytest.mark.parametrize(
    "path",
    [
        "framework.pra.module.PRAModule",
        "framework.gbc.environments.multiwoz.training.Tasks",
        # `gbc.attribution` was a module and is a package.
        "framework.gbc.attribution.results.AttributionOptions",
        "mine.gbc.module.GBCModule",
        "exact_match",
    ],
)
def test_other_paths_stay(path: str):
    assert current_path(path) == path


def test_every_new_module_is_there_and_no_old_one():
    root = Path(framework.__file__).parent

    def is_module(path: str) -> bool:
        return root.joinpath(*path.split(".")).with_suffix(".py").is_file()

    assert [new for new in moved._MOVED.values() if not is_module(new)] == []
    assert [old for old in moved._MOVED if is_module(old)] == []
    assert not moved._MOVED.keys() & set(moved._MOVED.values())


def test_a_name_that_moved_alone_goes_before_its_module(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(moved._MOVED, "gbc.module.Old", "gbc.training.other.New")
    assert current_path("framework.gbc.module:Old") == "framework.gbc.training.other:New"
    assert current_path("framework.gbc.module.Older") == "framework.gbc.training.module.Older"


def test_a_text_keeps_all_but_the_paths():
    text = "rate: 1e-4 # kept\nloss: framework.gbc.environments.multiwoz.release:load\npath: framework.gbc.module.A"
    changed = current_text(text)
    assert changed.startswith("rate: 1e-4 # kept\n")
    assert "multiwoz.dataset.release:load" in changed
    assert changed.endswith("framework.gbc.training.module.A")


def test_what_users_give_is_refused_with_the_new_path(monkeypatch: pytest.MonkeyPatch):
    tree = {"model": {"class_path": "x", "init_args": {"tasks": [{"class_path": "framework.gbc.module.GBCModule"}]}}}
    with pytest.raises(ConfigError, match=r"mine\.yaml names framework\.gbc\.module\.GBCModule, which") as refused:
        refuse_moved(tree, "mine.yaml")
    assert refused.value.hint == "use framework.gbc.training.module.GBCModule"
    refuse_moved({"a": [1, None, "framework.pra.module.PRAModule", 2.5, True]}, "mine.yaml")
    monkeypatch.setitem(moved._MOVED, "pra.before", "pra.module")
    with pytest.raises(ConfigError, match=r"it has moved, use framework\.pra\.module:PRAModule"):
        import_object("framework.pra.before:PRAModule")


def test_a_move_is_no_difference_of_recipes():
    before = "model: {class_path: framework.gbc.module.GBCModule, init_args: {loss: framework.gbc.losses:x, seed: 0}}"
    now = (
        "model: {class_path: framework.gbc.training.module.GBCModule, "
        "init_args: {loss: framework.gbc.graph.verbal_loss:x, seed: 1}}"
    )
    assert recipe_changes(before, now) == ["model.init_args.seed: 0 -> 1"]


def test_a_runs_recipe_is_read_with_old_paths(tmp_path: Path):
    run = make_run_folder(tmp_path / "run")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("framework.pra.module.PRAModule", "framework.gbc.module.GBCModule"))
    assert read_run(run).model == "framework.gbc.training.module.GBCModule"


def old_names(path: Path) -> None:
    """A recipe as it was before the move."""
    text = path.read_text()
    assert "framework.pra.module.PRAModule" in text
    path.write_text(text.replace("framework.pra.module.PRAModule", "framework.pra.before.PRAModule"))


@pytest.mark.slow
def test_a_run_of_before_goes_on_and_a_recipe_of_before_does_not(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(moved._MOVED, "pra.before", "pra.module")
    run = tmp_path / "run"
    main(["fit", "--config", str(recipe), "--trainer.max_steps", "2"])
    old_names(run / "recipe.yaml")
    manifest = run / "checkpoints" / "step=00000002" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["recipe"] = content["recipe"].replace("pra.module", "pra.before")
    manifest.write_text(json.dumps(content))
    capsys.readouterr()
    # Both the checkpoint's and the folder's recipe name what is not there any more.
    main(["fit", "--config", str(run / "recipe.yaml"), "--trainer.max_steps", "4"])
    told = capsys.readouterr().err
    assert "resuming from" in told
    changes = [line for line in told.splitlines() if "changed since" in line]
    assert changes == ["changed since: trainer.max_steps: 2 -> 4"]
    main(["validate", "--config", str(run / "recipe.yaml")])
    assert "framework.pra.module.PRAModule" in (run / "recipe.yaml").read_text()
    assert yaml.safe_load((run / "recipe.yaml").read_text())["trainer"]["max_steps"] == 4
    old_names(recipe)
    for arguments in (
        ["--config", str(recipe)],
        ["--config", str(run / "recipe.yaml"), "--model.class_path", "framework.pra.before.PRAModule"],
    ):
        with pytest.raises(SystemExit):
            main(["fit", *arguments])
        error = capsys.readouterr().err.splitlines()[-1]
        assert "framework.pra.before.PRAModule, which has moved: use framework.pra.module.PRAModule" in error


def test_what_a_run_wrote_beside_its_recipe_is_read_with_old_paths(tmp_path: Path):
    """Such as `best/graph.yaml` with a tool; a file of a user's is not."""
    text = "run: framework.gbc.environments.multiwoz.tracking:change_targets"
    for folder in ("runs/a/best", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "graph.yaml").write_text(text)
    (tmp_path / "runs/a/metrics").mkdir()
    found = read_yaml(tmp_path / "runs/a/best/graph.yaml")["run"]
    assert found == "framework.gbc.environments.multiwoz.state_tracking.turns:change_targets"
    assert read_yaml(tmp_path / "mine/graph.yaml") == {"run": text.partition(": ")[2]}
