"""The averaged weights: formula and ramp; tests of the strategies follow them when they are sharded."""

import pytest
import torch

from framework.core.errors import ConfigError
from framework.testing.models import tiny_model
from framework.training.ema import check_decay, decay_at, update_ema


def test_the_update_by_its_formula():
    model, ema_model = tiny_model(0), tiny_model(1)
    weights = [p.detach().clone() for p in model.parameters()]
    averages = [p.detach().clone() for p in ema_model.parameters()]
    update_ema(ema_model, model, 0.75)
    for now, average, weight in zip(ema_model.parameters(), averages, weights, strict=True):
        torch.testing.assert_close(now.detach(), 0.75 * average + 0.25 * weight)
    for now, weight in zip(model.parameters(), weights, strict=True):
        assert torch.equal(now, weight)


def test_no_decay_copies():
    model, ema_model = tiny_model(0), tiny_model(1)
    update_ema(ema_model, model, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(ema_model.parameters(), model.parameters(), strict=True))


def test_the_ramp_by_hand():
    assert [decay_at(step, 0.9999) for step in (0, 1, 8, 90)] == pytest.approx([0.1, 2 / 11, 0.5, 0.91])
    assert decay_at(10**9, 0.9999) == 0.9999
    assert decay_at(90, 0.5) == 0.5
    assert decay_at(100, 0.0) == 0


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_decays_that_cannot_be(decay: float):
    with pytest.raises(ConfigError, match=rf"ema_decay {decay}: use a number in \[0, 1\)"):
        check_decay(decay)
    check_decay(0.0)
