"""A model's plain linear layers are made ours where that is faster, and nothing else of it changes."""

import copy

import pytest
import torch
from torch import nn

from framework.gbc.language_models.layers import linear
from framework.testing.language_models import tiny_language_model


class Other(nn.Linear):
    """A layer of somebody else's."""


@pytest.mark.parametrize("preferred", [True, False])
def test_plain_layers_change_their_class_and_nothing_else(monkeypatch: pytest.MonkeyPatch, preferred: bool):
    monkeypatch.setattr(linear, "prefers_onednn", lambda: preferred)
    model = tiny_language_model()
    model.other = Other(2, 2)
    before, ids = copy.deepcopy(model), torch.arange(12)[None]
    linear.multiply_faster(model)
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Linear)}
    assert kinds == ({linear.Linear, Other} if preferred else {nn.Linear, Other})
    assert model.state_dict().keys() == before.state_dict().keys()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), before.parameters(), strict=True))
    torch.testing.assert_close(copy.deepcopy(model)(ids).logits, before(ids).logits)


def test_training_s_gradients_reach_the_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(linear, "prefers_onednn", lambda: True)
    monkeypatch.setattr("framework.core.products.prefers_onednn", lambda: True)
    monkeypatch.setattr("framework.core.products.LEAST_MULTIPLICATIONS", 1)
    model, ids = tiny_language_model(), torch.arange(12)[None]
    plain = copy.deepcopy(model)
    linear.multiply_faster(model)
    for each in (model, plain):
        each.requires_grad_()(ids).logits.square().mean().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
