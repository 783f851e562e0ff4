"""Initial weights are a function of the seed and the module's name alone."""

import pytest
import torch
from torch import nn

from framework.core.init import initialise, initialise_module, own_tensors, replace_tensor
from framework.core.param_tags import NO_DECAY, tag, tags_of


def make_model():
    model = nn.Sequential()
    model.add_module("first", nn.Linear(3, 4))
    model.add_module("norm", nn.BatchNorm1d(4))
    model.add_module("second", nn.Linear(4, 4, bias=False))
    return model


def test_own_tensors_are_not_those_of_children():
    model = make_model()
    assert own_tensors(model) == {}
    assert set(own_tensors(model.norm)) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def test_weights_depend_on_seed_and_name_and_not_on_what_was_drawn_before():
    one, two, other = make_model(), make_model(), make_model()
    initialise(one, seed=1)
    torch.rand(5)
    initialise(two, seed=1)
    initialise(other, seed=2)
    assert all(torch.equal(one.state_dict()[name], value) for name, value in two.state_dict().items())
    assert not torch.equal(one.first.weight, other.first.weight)
    # A module that is made by itself has the same values.
    alone = nn.Linear(3, 4)
    initialise_module(alone, 1, "first")
    assert torch.equal(alone.weight, one.first.weight)
    initialise_module(alone, 1, "renamed")
    assert not torch.equal(alone.weight, one.first.weight)


def test_the_global_generator_is_left_alone():
    model = make_model()
    before = torch.get_rng_state()
    initialise(model, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_on_the_meta_device_is_passed_over():
    with torch.device("meta"):
        model = make_model()
    initialise(model, seed=1)
    assert model.first.weight.is_meta


def test_tensors_without_a_way_to_fill_them_are_a_bug():
    module = nn.Module()
    module.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(AssertionError, match=r"Module has tensors and no reset_parameters\(\)"):
        initialise_module(module, 1, "scale")


def test_a_replaced_parameter_keeps_its_tags_and_whether_it_is_trained():
    module = nn.BatchNorm1d(2)
    tag(module.weight, NO_DECAY).requires_grad_(False)
    replace_tensor(module, "weight", torch.full((2,), 5.0))
    replace_tensor(module, "running_mean", torch.full((2,), 6.0))
    assert isinstance(module.weight, nn.Parameter)
    assert tags_of(module.weight) == {NO_DECAY}
    assert not module.weight.requires_grad
    assert module.weight.tolist() == [5, 5]
    assert not isinstance(module.running_mean, nn.Parameter)
    assert module.running_mean.tolist() == [6, 6]
