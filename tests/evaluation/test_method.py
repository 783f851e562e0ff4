"""The classifier's record names what is there."""

from framework.core.imports import import_object
from framework.core.method import method_of
from framework.evaluation.method import METHOD


def test_the_class_path_is_that_of_a_module_that_builds():
    (path,) = METHOD.class_paths
    module = import_object(path)(num_classes=2)
    assert method_of(type(module), [METHOD]) is METHOD
