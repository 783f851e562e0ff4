"""Options of soft prompts: numbers out of range are refused, and reading them imports nothing large."""

import subprocess
import sys

import pytest

from framework.core.errors import ConfigError
from framework.gbc.commands.soft_prompt_options import SoftPromptOptions


@pytest.mark.parametrize("name", ["num_tokens", "steps", "batch_size", "evaluate_every", "learning_rate"])
def test_numbers_out_of_range(name: str):
    with pytest.raises(ConfigError, match=f"{name} 0" if name in ("steps", "batch_size", "learning_rate") else "steps"):
        SoftPromptOptions(**{name: 0})


def test_they_are_read_without_lightning():
    code = "import framework.gbc.commands.soft_prompt_options, sys; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
