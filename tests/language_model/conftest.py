"""A run of two steps by the command, on examples of the micro world."""

from pathlib import Path

import pytest

from framework.cli.main import main

RECIPE = Path(__file__).parents[2] / "recipes/gbc/microworld.yaml"


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    main(["shards", "microworld", str(folder / "data"), "--num_examples", "64", "--num_validation", "16"])
    words = {
        "run.dir": folder / "run",
        "data.train": folder / "data/train",
        "data.validation": folder / "data/validation",
        "model.init_args.tokenizer": folder / "data/tokenizer",
        "model.init_args.architecture.hidden_size": 16,
        "trainer.max_steps": 2,
        "trainer.log_every_n_steps": 1,
        "trainer.val_check_interval": 2,
        "trainer.enable_progress_bar": "false",
    }
    main(["fit", "--config", str(RECIPE), *(f"--{name}={value}" for name, value in words.items())])
    return folder
