"""Commands load what they use: what takes seconds is not among it where it is of no use."""

import json
import subprocess
import sys

import pytest
import transformers
from packaging.version import Version

# Generation loads scikit-learn by itself in older ones.
_LEARNING = ("sklearn",) if Version(transformers.__version__) >= Version("5.23") else ()
_TRAINER = ("lightning", "torchmetrics", "wandb")
_LANGUAGE_MODELS = ("transformers", "peft")
FORBIDDEN = {
    "framework.cli.main": ("torch", "numpy", "jsonargparse", *_TRAINER, *_LANGUAGE_MODELS),
    "framework.cli.runs": ("torch", "numpy", *_TRAINER, *_LANGUAGE_MODELS),
    "framework.cli.report": ("torch", *_TRAINER, *_LANGUAGE_MODELS),
    "framework.cli.export": ("webdataset", *_TRAINER, *_LANGUAGE_MODELS),
    "framework.cli.shards": ("matplotlib", "sklearn", *_TRAINER, *_LANGUAGE_MODELS),
    "framework.pra.commands.sample": ("webdataset", "matplotlib", "sklearn", "scipy", *_TRAINER, *_LANGUAGE_MODELS),
    "framework.gbc.commands.shards": ("matplotlib", "sklearn", *_TRAINER, "transformers", "peft"),
    "framework.gbc.commands.agents": ("sklearn", "webdataset", *_TRAINER),
    "framework.gbc.commands.attribute": (*_LEARNING, "webdataset", *_TRAINER),
    # Its accuracies are metrics of torchmetrics.
    "framework.gbc.commands.attribute_logs": (*_LEARNING, "webdataset", "lightning", "wandb"),
}
"""What the module of a command may not load, by the module's name."""
_LOOK = """
import json, os, sys
from importlib import import_module
(forbidden, common), found = json.loads(sys.argv[1]), {}
# What several may load is loaded once, after what may not load it; each module is then loaded by a fork.
for module, names in sorted(forbidden.items(), key=lambda item: [name not in item[1] for name in common]):
    for name, large in common.items():
        if name not in names and large not in sys.modules:
            import_module(large)
    end, other = os.pipe()
    if (child := os.fork()) == 0:
        import_module(module)
        os.write(other, json.dumps([name for name in names if name in sys.modules]).encode())
        os._exit(0)
    os.close(other)
    found[module] = json.loads(os.read(end, 4096) or b'"it cannot be loaded"')
    os.waitpid(child, 0)
print(json.dumps(found))
"""
_COMMON = {"torch": "torch"} | ({"transformers": "transformers.modeling_utils"} if _LEARNING else {})


@pytest.mark.slow
def test_no_command_loads_what_it_does_not_use():
    command = [sys.executable, "-c", _LOOK, json.dumps([FORBIDDEN, _COMMON])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout)
    assert found == {module: [] for module in FORBIDDEN}
