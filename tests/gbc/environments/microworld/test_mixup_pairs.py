"""Mixup pairs of examples differ in one word, and in the answer."""

import pytest

from framework.gbc.environments.microworld.rules import answer
from framework.gbc.environments.microworld.training_examples import draw_examples


@pytest.mark.slow
def test_mixup_pairs_differ_in_one_word_and_in_the_answer():
    examples = [example for example in draw_examples("t", 300) if "twin" in example]
    assert len(examples) > 100
    for example in examples:
        pair = example["twin"]
        assert answer(pair["prompt"], pair["message"]) == pair["answer"] != example["answer"]
        words, others = ([*each["prompt"].split(), *each["message"].split()] for each in (example, pair))
        assert sum(word != other for word, other in zip(words, others, strict=True)) == 1
        assert len(pair["answer"].split()) == len(example["answer"].split())
