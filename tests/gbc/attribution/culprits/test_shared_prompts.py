"""A model that reads each prompt once answers as one that reads it each time."""

import pytest
import torch

from framework.core.errors import ConfigError
from framework.gbc.attribution.culprits.shared_prompts import SharedPrompts, token_fit
from framework.gbc.language_models.interface import Piece, Request
from framework.gbc.language_models.local import LocalModelConfig
from framework.testing.language_models import tiny_local_model


def request(prompt: str, message: str, **options: object) -> Request:
    return Request(step="a", prompt=prompt, pieces=(Piece(text=message),), max_new_tokens=6, **options)


def test_answers_are_those_of_the_plain_model_and_are_remembered(monkeypatch):
    plain = tiny_local_model()
    shared = SharedPrompts(tiny_local_model())
    requests = [request("You say.", "a"), request("You say.", "some more words"), request("Another.", "a b")]
    assert shared.reply(requests) == plain.reply(requests)
    (too_long,) = shared.reply([request("You say.", "x " * 900)])
    assert "the context of the model holds 512" in str(too_long)
    stopped = [request("You say.", "a", stop=(plain.reply(requests)[0].output[1:3],))]
    assert shared.reply(stopped) == plain.reply(stopped)
    monkeypatch.setattr(SharedPrompts, "read", None)
    assert shared.reply(requests) == plain.reply(requests)


def test_fits_are_log_probabilities_with_and_without_shared_prefixes():
    model = tiny_local_model()
    rows = [((5, 6, 7), (8, 9)), ((5, 6, 7), (9, 10, 11)), ((4,), (3,))]
    plain, shared = token_fit(model, rows), SharedPrompts(model).fit(rows)
    for (prefix, tokens), one, other in zip(rows, plain, shared, strict=True):
        ids = torch.tensor([[*prefix, *tokens]])
        log_probs = model.model(input_ids=ids).logits[0, len(prefix) - 1 : -1].log_softmax(-1)
        own = log_probs.gather(1, torch.tensor(tokens)[:, None])[:, 0]
        for found in (one, other):
            torch.testing.assert_close(found.log_probs, own, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(found.surprise, log_probs.max(-1).values - own, atol=1e-5, rtol=1e-5)
            assert found.likeliest.tolist() == log_probs.argmax(-1).tolist()


def test_models_whose_answers_do_not_repeat_are_refused():
    model = tiny_local_model()
    model.config = LocalModelConfig(path="", temperature=1.0)
    with pytest.raises(ConfigError, match=r"temperature 1\.0"):
        SharedPrompts(model)


def test_an_answer_names_the_steps_that_were_read_this_time():
    shared = SharedPrompts(tiny_local_model())
    first, second = (
        Request(step="w", prompt="You say.", pieces=(Piece(text="a", source=source),), max_new_tokens=2)
        for source in ("draft@1", "draft@3")
    )
    read = [[block.source for block in reply.blocks] for reply in shared.reply([first, second])]
    assert read == [["w", "draft@1"], ["w", "draft@3"]]
