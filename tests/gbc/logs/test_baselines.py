"""Who is named without a look at any gradient, by hand."""

import torch

from framework.gbc.logs.baselines import BASELINES, untrained_surrogate
from framework.gbc.logs.schema import Log, Message
from framework.gbc.logs.surrogate import ReadLog, read_log
from framework.testing.language_models import tiny_local_model


def read() -> ReadLog:
    messages = (
        Message(agent="user", role="user", content="a very long question from outside"),
        Message(agent="a", content="one"),
        Message(agent="b", content="the longest answer"),
        Message(agent="tool", role="tool", content="two"),
        Message(agent="a", content="three"),
    )
    return read_log(Log(id="x", messages=messages), tiny_local_model())


def test_every_baseline():
    found = {name: baseline(read()) for name, baseline in BASELINES.items()}
    agents = {name: dict(guess.agents) for name, guess in found.items()}
    steps = {name: dict(guess.steps) for name, guess in found.items()}
    third = 1 / 3
    assert agents == {
        "longest message": {"b": 1.0},
        "first message": {"a": 1.0},
        "last message": {"a": 1.0},
        "most frequent agent": {"a": 1.0},
        "chance": {"a": third, "b": third, "tool": third},
    }
    assert steps == {
        "longest message": {2: 1.0},
        "first message": {1: 1.0},
        "last message": {4: 1.0},
        "most frequent agent": {1: 0.5, 4: 0.5},
        "chance": {1: 0.25, 2: 0.25, 3: 0.25, 4: 0.25},
    }


def test_an_untrained_surrogate_is_the_same_one_each_time():
    model = tiny_local_model()
    state = torch.get_rng_state()
    one, two = untrained_surrogate(model), untrained_surrogate(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert (one.max_tokens, one.tokenizer) == (model.max_tokens, model.tokenizer)
    assert one.model.config.num_hidden_layers == 2
    for name, weights in one.model.state_dict().items():
        assert torch.equal(weights, two.model.state_dict()[name])
