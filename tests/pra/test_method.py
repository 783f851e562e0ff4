"""PRA's record names what is there."""

from framework.core.imports import import_object
from framework.core.method import method_of
from framework.pra.method import METHOD
from framework.testing.models import tiny_config


def test_the_class_path_is_that_of_a_module_that_builds():
    (path,) = METHOD.class_paths
    module = import_object(path)(architecture=tiny_config())
    assert method_of(type(module), [METHOD]) is METHOD
    checkpoint: dict[str, object] = {}
    module.on_save_checkpoint(checkpoint)
    (export,) = METHOD.exports
    assert export.key in checkpoint, "by which an export finds out whose checkpoint it is"
    assert callable(import_object(export.function))


def test_every_command_and_the_plan_are_functions_with_help():
    functions = [command.function for command in METHOD.commands.values()]
    assert all(isinstance(path, str) for path in functions)
    for path in (*functions, METHOD.plan):
        assert import_object(str(path)).__doc__
    assert all(command.help for command in METHOD.commands.values())
