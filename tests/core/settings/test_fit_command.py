import sys

from framework.core.settings.fit_command import fit_command


def test_settings_are_words_before_the_further_options():
    assert fit_command("recipe.yaml", {"run.dir": "out", "seed_everything": 3}, ["--seed_everything", "4"]) == [
        *(sys.executable, "-m", "framework.cli.main", "fit", "--config", "recipe.yaml"),
        *("--run.dir", "out", "--seed_everything", "3", "--seed_everything", "4"),
    ]
