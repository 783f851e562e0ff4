"""Options of soft prompts: numbers out of range are refused, and reading them imports nothing large."""

import subprocess
import sys
from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.gbc.commands.soft_prompt_options import SoftPromptOptions


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"steps": 0}, "steps 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
        ({"num_tokens": 0}, "steps 100"),
        ({"evaluate_every": 0}, "steps 100"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        SoftPromptOptions(**options)


@pytest.mark.slow
def test_they_are_read_without_lightning():
    code = "import framework.gbc.commands.soft_prompt_options, sys; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
