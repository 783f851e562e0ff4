"""Tags stay with the parameter that they were given to."""

import torch
from torch import nn

from framework.core.param_tags import NO_DECAY, tag, tag_all, tags_of


def test_tags_add_up():
    parameter = nn.Parameter(torch.zeros(2))
    assert tags_of(parameter) == frozenset()
    assert tag(parameter, NO_DECAY) is parameter
    tag(parameter, "frozen", NO_DECAY)
    assert tags_of(parameter) == {NO_DECAY, "frozen"}


def test_all_parameters_of_a_module_are_tagged():
    module = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    assert tag_all(module[1], NO_DECAY) is module[1]
    assert {name for name, parameter in module.named_parameters() if NO_DECAY in tags_of(parameter)} == {
        "1.weight",
        "1.bias",
    }
