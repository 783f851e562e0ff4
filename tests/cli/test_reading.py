"""`plan` and `where` refuse what `fit` would refuse, and open nothing."""

import pytest

from framework.testing.command_line import error_of


@pytest.mark.parametrize("command", ["where", "plan"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.batch_size", "-4"], "data.batch_size is -4: give at least 1"),
        (["--data.global_batch", "0"], "data.global_batch is 0: give at least 1"),
        (["--trainer.max_steps", "0"], "trainer.max_steps 0 is not a number of steps"),
        (["--seed_everything", "99999999999"], "seed_everything is 99999999999"),
    ],
)
def test_numbers_that_cannot_be(capsys, recipe, command: str, options: list[str], words: str):
    assert words in error_of(capsys, command, "--config", recipe, *options)
