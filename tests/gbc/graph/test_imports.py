"""Graphs are plain data: whoever reads one needs neither torch nor transformers."""

import subprocess
import sys
from pathlib import Path

import framework.gbc.graph

SCRIPT = """
import importlib, pkgutil, sys
import framework.gbc.graph as package
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"{package.__name__}.{module.name}")
    print(module.name)
heavy = {"torch", "transformers", "lightning", "peft", "numpy"} & sys.modules.keys()
assert not heavy, f"framework.gbc.graph imports {sorted(heavy)}"
"""


def test_no_module_of_graphs_imports_a_model_library():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = map(Path, framework.gbc.graph.__path__)
    assert done.stdout.split() == sorted(path.stem for path in folder.glob("[a-z]*.py"))
