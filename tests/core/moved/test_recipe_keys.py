"""Old keys of recipes: what an error says, and recipes of old checkpoints."""

from pathlib import Path

import pytest
import yaml

from framework.cli.main import main
from framework.core.moved.recipe_keys import MOVED_KEYS, explain_moved_key, with_new_keys
from framework.training.checkpoint.provenance import recipe_changes

RECIPES = Path(__file__).parents[3] / "recipes"


def told(options: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *options])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def old_recipe(tmp_path: Path, name: str, key: str) -> str:
    """A recipe with a value at an old key."""
    recipe = yaml.safe_load((RECIPES / name).read_text())
    *groups, last = key.split(".")
    place = recipe
    for group in groups:
        place = place.setdefault(group, {})
    place[last] = 1
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(recipe))
    return str(tmp_path / "old.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("old", MOVED_KEYS)
def test_an_old_key_in_a_recipe_is_an_error_that_names_the_new_one(tmp_path, capsys, old):
    of_agents = "gbc/microworld_train.yaml" if ".attribution." in old else "gbc/microworld.yaml"
    name = of_agents if old.startswith("model.") else "pra/digits.yaml"
    assert f"error: {old} is now {MOVED_KEYS[old]} (see:" in told(["--config", old_recipe(tmp_path, name, old)], capsys)


@pytest.mark.parametrize("option", ["--data.num_workers=2", "--data.num_workers 2"])
def test_an_old_key_as_an_option(capsys, option):
    message = told(["--config", str(RECIPES / "pra/digits.yaml"), *option.split()], capsys)
    assert "error: data.num_workers is now data.loading.num_workers" in message


def test_other_messages_are_left_alone():
    assert explain_moved_key("Group 'data' does not accept option 'colour'") is None
    assert explain_moved_key("Group 'trainer' does not accept option 'crop'") is None
    assert explain_moved_key("unrecognized arguments: --data.cropped 1") is None


def test_a_recipe_of_an_old_checkpoint_is_compared_by_the_new_keys():
    before = "data: {image_size: 16, num_workers: 2, flip: true}"
    now = "data: {images: {size: 16, flip: true}, loading: {num_workers: 4}}"
    assert recipe_changes(before, now) == ["data.loading.num_workers: 2 -> 4"]
    assert with_new_keys({"data.crop": "center", "run.dir": "x"}) == {"data.images.crop": "center", "run.dir": "x"}
