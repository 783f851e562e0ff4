"""A user's mistake names the value and the way out, and has an exit code that tells launchers what to do."""

import copy
import pickle

import pytest

from framework.core.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    FrameworkError,
    Interrupted,
    Preempted,
    TrainingError,
)
from framework.gbc.language_models.server import ServerError
from framework.training.checkpoint.layout import NewerFormatError


@pytest.mark.parametrize(
    ("kind", "code"),
    [(ConfigError, 2), (DataError, 2), (CheckpointError, 2), (TrainingError, 1), (Preempted, 75), (Interrupted, 130)],
)
def test_problem_and_hint_are_one_line_and_the_kind_says_the_exit_code(kind, code):
    error = kind("depth is 0", hint="give 1 or more")
    assert isinstance(error, FrameworkError)
    assert str(error) == "depth is 0: give 1 or more"
    assert (error.problem, error.hint, error.exit_code) == ("depth is 0", "give 1 or more", code)


def test_a_hint_is_demanded():
    with pytest.raises(TypeError, match="hint"):
        ConfigError("depth is 0")


@pytest.mark.parametrize("kind", [FrameworkError, ConfigError, Preempted, NewerFormatError, ServerError])
@pytest.mark.parametrize("carry", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_an_error_reaches_another_process(kind, carry):
    """Otherwise a `multiprocessing.Pool` whose worker raises it never returns."""
    error = kind("depth is 0", hint="give 1 or more")
    error.__notes__ = ["in worker 3"]
    arrived = carry(error)
    assert type(arrived) is kind
    assert (str(arrived), arrived.problem, arrived.hint) == (str(error), "depth is 0", "give 1 or more")
    assert arrived.__notes__ == ["in worker 3"]
