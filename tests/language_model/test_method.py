"""The language models' record names what is there."""

from framework.core.imports import import_object
from framework.core.method import method_of
from framework.language_model.method import METHOD
from framework.language_model.module import LanguageModelConfig


def test_the_class_path_is_that_of_a_module_that_builds():
    (path,) = METHOD.class_paths
    module = import_object(path)(tokenizer="", architecture=LanguageModelConfig(vocabulary_size=8))
    assert method_of(type(module), [METHOD]) is METHOD
    checkpoint: dict[str, object] = {}
    module.on_save_checkpoint(checkpoint)
    (export,) = METHOD.exports
    assert export.key in checkpoint, "by which an export finds out whose checkpoint it is"
    assert callable(import_object(export.function))
