"""The numbers of a tiny checkout, counted by hand."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "measure_structure.py"

FILES = {
    "framework/__init__.py": '"""A package."""\n',
    "framework/loose.py": "from typing import Any\n\nx: Any = 1\n",
    "framework/methods.py": 'PATHS = ["framework.pra.method"]\n',
    "framework/cli.py": "from framework.pra.model import forward\n",
    "framework/training/strategies/ddp.py": 'NAME = "ddp"\n',
    "framework/training/ema.py": '''
"""Averages under DDP and FSDP2: words in a docstring are not counted."""
import os
from collections import namedtuple

import torch
from lightning.pytorch.loops import _private_loop
from torch import Tensor, nn
from torch._subclasses import fake_tensor


class Average:
    """A class."""

    kept: Tensor

    def __init__(self):
        self._own = 0

    def update(self, model: nn.Module, decay: float, step: int) -> Tensor:
        """Moves the average.

        Args:
            model: where from.
            decay: in [0, 1].
            step: of the optimizer.
        """
        return self._own + model._forward_hooks

    def reset(self, model, decay, step: "int"):
        """No section."""
        os._exit(1)
        return namedtuple("A", "b")(1)._replace(b=2)

    def on_train_end(self, trainer, module, batch):
        """A hook of Lightning."""
        return module.ds_tensor

    def _private(self, one, two, three):
        pass
''',
    "framework/training/lightning_compat.py": "import torch\n\ntorch._private()\n",
    "framework/pra/__init__.py": "",
    "framework/pra/model.py": '''
from jaxtyping import Float
from torch import Tensor


def forward(x: Float[Tensor, "batch dim"], y: Tensor) -> tuple[Tensor, Float[Tensor, ""]]:
    """Two bare tensors."""
    if "fsdp2" in x:
        return y, x
''',
    "framework/testing/helper.py": "from framework.pra import model\n",
    "tests/training/test_ema.py": "",
}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("measure_structure", TOOL)
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules["measure_structure"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["measure_structure"]


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"))
    return tmp_path


def test_what_is_listed(tool, root):
    checkout = tool.read_checkout(root)
    listed = {name: found(checkout) for name, found in tool.LISTS.items()}
    assert listed == {
        "loose top-level files": ["cli.py", "loose.py", "methods.py"],
        "flat files in gbc": [],
        "files over 400 lines": [],
        "functions over 60 lines": [],
        "public functions of 3+ parameters without Args": ["training/ema.py:reset"],
        "private touches outside compat files": [
            "training/ema.py:6 lightning.pytorch.loops._private_loop",
            "training/ema.py:8 torch._subclasses.fake_tensor",
            "training/ema.py:27 _forward_hooks",
            "training/ema.py:36 ds_tensor",
        ],
        "files that name a method outside it": ["cli.py"],
        "files that name a strategy outside training/strategies": ["pra/model.py", "training/ema.py"],
        "modules without a mirrored test": [
            *("cli.py", "loose.py", "methods.py", "pra/model.py", "training/lightning_compat.py"),
            "training/strategies/ddp.py",
        ],
    }


def test_numbers(tool, root, capsys):
    tool.main([str(root), "--json", str(root / "numbers.json"), "--details"])
    numbers = json.loads((root / "numbers.json").read_text())
    assert numbers["files"] == 10
    assert (numbers["largest folder"], numbers["largest folder (files)"]) == ("", 3)
    # __init__ 2, update 9, reset 4, on_train_end 3, _private 2, forward 4.
    assert numbers["median function (lines)"] == 3.5
    assert numbers["Any in annotations"] == 1
    assert (numbers["bare Tensor in pra"], numbers["bare Tensor in training"]) == (2, 2)
    assert numbers["bare Tensor in signatures and fields"] == 4
    assert "\n  training/ema.py:reset" in capsys.readouterr().out


def test_long_files_and_functions(tool, root):
    body = "".join(f"    x = {number}\n" for number in range(60))
    (root / "framework/loose.py").write_text(f"def f():\n{body}" + "\n" * 340)
    checkout = tool.read_checkout(root)
    assert tool.LISTS["files over 400 lines"](checkout) == ["loose.py"]
    assert tool.LISTS["functions over 60 lines"](checkout) == ["loose.py:f 61"]


def test_the_check_names_what_is_above_its_limit(tool, root, monkeypatch):
    monkeypatch.setattr(tool, "LIMITS", {"loose top-level files": 2, "Any in annotations": 1})
    with pytest.raises(SystemExit, match=r"^loose top-level files: 3, at most 2\n  cli.py\n") as error:
        tool.main([str(root), "--check"])
    assert "Any" not in str(error.value)
    monkeypatch.setattr(tool, "LIMITS", {"loose top-level files": 3})
    with pytest.raises(SystemExit) as error:
        tool.main([str(root), "--check"])
    assert error.value.code is None


def test_a_folder_that_is_not_a_checkout(tool, tmp_path):
    with pytest.raises(SystemExit, match="has no folder framework"):
        tool.main([str(tmp_path)])
