"""The table of a comparison; the whole command is tested beside what it does (`state_tracking/test_comparison.py`)."""

import json
from pathlib import Path
from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.gbc.commands import compare_multiwoz


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    share = {"share": 0.25, "low": 0.101, "high": 0.5, "num": 8}
    rows = [
        {
            "system": "team",
            "when": "after",
            "joint_goal_accuracy": share,
            "inform": share,
            "success": share,
            "slot_f1": 0.5,
            "parameters": 14,
            "steps": 3,
        }
    ]
    compare_multiwoz._show(tmp_path, rows)
    assert json.loads((tmp_path / "table.json").read_text()) == rows
    assert compare_multiwoz._share(share) == "25.0 (10.1 to 50.0) of 8"
    # Without another few-shot file there is nothing to say of it.
    assert compare_multiwoz._share(rows[0].get("dev_joint_goal_accuracy")) == ""
    assert "team" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"systems": ()}, "no systems to work on: use team or alone, or both"),
        ({"minutes": 0.0}, "minutes 0: use a number above 0"),
        ({"minutes": float("nan")}, "minutes nan"),
    ],
)
def test_what_is_refused_before_anything_is_read(tmp_path: Path, options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        compare_multiwoz.compare_multiwoz(str(tmp_path), models="m", release="r", train="t", **options)
