"""What GBC adds to the general code: its module, its metrics and its commands."""

import inspect

from framework.core.imports import import_object
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.method import METHOD
from framework.gbc.training.metrics import validation_metrics
from framework.gbc.training.module import GBCModule
from framework.gbc.training.rollouts import EpisodeResult


def test_its_module():
    assert [import_object(path) for path in METHOD.modules] == [GBCModule]


def test_its_validation_loss_is_a_metric_of_the_module():
    result = EpisodeResult(sample=0, number=0, weight=1.0, id="0", loss=VerbalLoss(value=0.5, text="wrong"))
    assert METHOD.validation_loss in validation_metrics([result])


def test_every_command_explains_itself():
    paths = [path for added in METHOD.subcommands.values() for path in added.values()]
    for command in METHOD.commands.values():
        assert command.help
        paths += [command.function] if isinstance(command.function, str) else command.function.values()
    assert all(inspect.getdoc(import_object(path)) for path in paths)
