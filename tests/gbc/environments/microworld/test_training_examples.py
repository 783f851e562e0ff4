"""Training examples: a function of the seed, right by the rules, of every role."""

import pytest

from framework.gbc.environments.microworld.rules import answer
from framework.gbc.environments.microworld.training_examples import draw_examples


@pytest.mark.slow
def test_examples():
    examples = list(draw_examples("a", 200))
    assert examples == list(draw_examples("a", 200))
    assert examples[:20] != list(draw_examples("b", 20))
    assert {example["role"] for example in examples} == {"manager", "worker", "responder"}
    for example in examples:
        assert answer(example["prompt"], example["message"]) == example["answer"]
