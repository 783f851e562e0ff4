"""The tokenizer that is learned from dialogues."""

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue
from framework.gbc.environments.multiwoz.state_tracking.tokenizer import learn_merges, learn_tokenizer
from framework.language_model.chat_tokenizer import UNKNOWN
from framework.language_model.module import encode_episode


def test_a_value_has_the_same_tokens_wherever_it_stands(dialogue: Dialogue):
    tokenizer = learn_tokenizer([dialogue] * 3, vocabulary_size=400)
    assert len(tokenizer) <= 400
    name = tokenizer.tokenize("zanubar house")
    for text in ("the zanubar house, in", "name=zanubar house; area=north", "x | zanubar house | ?"):
        tokens = tokenizer.tokenize(text)
        assert any(tokens[start : start + len(name)] == name for start in range(len(tokens))), text
        assert UNKNOWN not in tokens
    # What was seen often is one token, and what is read comes back.
    assert tokenizer.tokenize("Hotel 09:15") == ["hotel", "09", ":15"]
    ids = tokenizer("book day=friday; name=zanubar house")["input_ids"]
    assert tokenizer.decode(ids) == "book day= friday ; name= zanubar house"


def test_examples_have_the_form_of_the_agents_inputs(dialogue: Dialogue):
    tokenizer = learn_tokenizer([dialogue], vocabulary_size=400)
    read, said = encode_episode(tokenizer, {"prompt": "hotel", "message": "a hotel", "answer": "none"})
    assert tokenizer.convert_ids_to_tokens(read)[0] == "<system>"
    assert tokenizer.convert_ids_to_tokens(read)[-1] == "<assistant>"
    assert said[-1] == tokenizer.eos_token_id


def test_an_alphabet_takes_tokens(dialogue: Dialogue):
    with pytest.raises(ConfigError, match="vocabulary of 20 tokens"):
        learn_tokenizer([dialogue], vocabulary_size=20)


def test_merges_by_hand():
    # ab: 8, then abc (5), then of the pairs that are seen 3 times the first in the alphabet.
    words = {"abc": 5, "xab": 3, "ab": 3, "zz": 2, "é!": 9}
    assert learn_merges(words, 10) == [("a", "##b"), ("ab", "##c"), ("##a", "##b"), ("x", "##ab")]
    assert learn_merges(words, 1) == [("a", "##b")]
    # An overlap is joined from the left.
    assert learn_merges({"aaaa": 3}, 9) == [("##a", "##a"), ("##aa", "##a"), ("a", "##aaa")]
