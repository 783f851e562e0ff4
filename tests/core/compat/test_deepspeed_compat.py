"""DeepSpeed's private parts are where we use them, and what its parameters hold, which `strategies.deepspeed` reads."""

import ast
import inspect
import textwrap
from importlib.util import find_spec

import pytest

from framework.core.compat.deepspeed_compat import set_universal_loading
from tests.core.compat.found import find, moved

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")

PRIVATE = {"deepspeed.runtime.engine:DeepSpeedEngine._config": "resume on another number of processes"}

OF_PARAMETERS = (
    "ds_tensor",
    "ds_status",
    "ds_shape",
    "ds_numel",
    "ds_active_sub_modules",
    "all_gather",
    "partition",
)
"""What ZeRO-3 puts on a parameter."""


def assigned(module: str) -> set[str]:
    """Attributes that a module's code sets."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(find("deepspeed", module, "shard weights"))))
    return {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_PARAMETERS)
def test_parameters_of_zero_3(name: str):
    module = "deepspeed.runtime.zero.partition_parameters"
    assert name in assigned(module), moved("deepspeed", f"{module}: parameter.{name}", "hold the parts of weights")


def test_the_setting_of_the_universal_format():
    path = "deepspeed.runtime.config:DeepSpeedConfig"
    find("deepspeed", path, "resume on another number of processes")
    parts = {"deepspeed.runtime.engine": "_config", "deepspeed.runtime.config": "load_universal_checkpoint"}
    for module, name in parts.items():
        assert name in assigned(module), moved("deepspeed", f"{module}: {name}", next(iter(PRIVATE.values())))

    class Config:
        load_universal_checkpoint = False

    class Engine:
        _config = Config()

    engine = Engine()
    set_universal_loading(engine, True)
    assert engine._config.load_universal_checkpoint
