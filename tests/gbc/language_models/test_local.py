"""Local models: folders, templates, batches, what cannot be used."""

from typing import get_args

import pytest
import torch

from framework.core.errors import ConfigError, DataError
from framework.gbc.language_models.interface import Piece, Reply, Request
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.testing.language_models import (
    GEMMA,
    Family,
    save_tiny_model,
    tiny_hybrid_model,
    tiny_language_model,
    tiny_local_model,
    tiny_tokenizer,
)

TEXTS = ["cheap hotel", "I need a train to London on Friday at 10:15, please.", "x", "the old mill in the north"]


def ask(text: str, *, max_new_tokens: int = 12, seed: int = 0, prompt: str = "Be brief.") -> Request:
    return Request(
        step="a", prompt=prompt, pieces=(Piece(text=text, source="user"),), max_new_tokens=max_new_tokens, seed=seed
    )


@pytest.mark.parametrize("family", get_args(Family))
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_batches_answer_as_single_requests_do(family: Family, temperature: float):
    requests = [ask(text, seed=i, max_new_tokens=12 if i else 5) for i, text in enumerate(TEXTS)]
    together = tiny_local_model(family, temperature=temperature, batch_size=3).reply(requests)
    alone = tiny_local_model(family, temperature=temperature, batch_size=1)
    assert together == [alone.reply([request])[0] for request in requests]
    assert [len(reply.output_ids) for reply in together if reply.finish == "length"].count(5) <= 1


@pytest.mark.parametrize("family", get_args(Family))
def test_a_static_cache_gives_the_same_tokens(family: Family):
    requests = [ask(text, seed=i, max_new_tokens=12) for i, text in enumerate(TEXTS)]
    expected = tiny_local_model(family, temperature=1.5, batch_size=3).reply(requests)
    static = tiny_local_model(family, temperature=1.5, batch_size=3, generation_cache="static")
    # Again, with the cache that is there.
    assert static.reply(requests) == static.reply(requests) == expected


def test_a_static_cache_of_other_states():
    with pytest.raises(ConfigError, match="generation_cache static with FalconH1ForCausalLM"):
        LocalModel(
            tiny_hybrid_model("falcon_h1"), tiny_tokenizer(), LocalModelConfig(path="", generation_cache="static")
        )


def test_generation_is_the_likeliest_token_each_time():
    model = tiny_local_model()
    (reply,) = model.reply([ask(TEXTS[1])])
    ids = list(reply.input_ids)
    for token in reply.output_ids:
        assert model.model(torch.tensor([ids])).logits[0, -1].argmax().item() == token
        ids.append(token)
    assert reply.output == "".join(reply.output[start:stop] for start, stop in reply.output_spans)


def test_sampling_depends_on_the_seed_alone():
    model = tiny_local_model(temperature=2.0)
    first, again, other = model.reply([ask("x", seed=1), ask("x", seed=1), ask("x", seed=2)])
    assert first == again != other


def test_an_answer_ends_with_the_end_token():
    model = tiny_local_model()
    (first,) = model.reply([ask(TEXTS[0])])
    # The third token of the answer becomes an end token.
    model._ends.append(first.output_ids[2])
    (reply,) = model.reply([ask(TEXTS[0])])
    stop = first.output_ids.index(first.output_ids[2]) + 1
    assert reply.output_ids == first.output_ids[:stop]
    assert reply.finish == "stop"
    assert len(reply.output_spans) == stop


@pytest.mark.parametrize("family", get_args(Family))
def test_a_folder_gives_the_same_model(family: Family, tmp_path):
    tokenizer = tiny_tokenizer()
    saved = tiny_language_model(family, vocabulary=len(tokenizer))
    saved.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = LocalModel.load(LocalModelConfig(path=str(tmp_path)))
    assert type(model.model) is type(saved)
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    expected = LocalModel(saved, tokenizer).reply([ask(TEXTS[0])])
    assert model.reply([ask(TEXTS[0])]) == expected


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        LocalModel.load(LocalModelConfig(path=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="no usable model"):
        LocalModel.load(LocalModelConfig(path=str(tmp_path)))
    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="no usable model"):
        LocalModel.load(LocalModelConfig(path=str(tmp_path)))


def test_a_tokenizer_without_a_chat_template():
    tokenizer = tiny_tokenizer(template=None)
    with pytest.raises(ConfigError, match=r"no chat template.*set plain_format"):
        tiny_local_model(tokenizer=tokenizer)
    model = tiny_local_model(tokenizer=tokenizer, plain_format="{message} {x}\n{prompt}:")
    assert model.encode(ask("{prompt}")).text == "{prompt} {x}\nBe brief.:"


def test_a_template_without_a_system_role():
    tokenizer = tiny_tokenizer(template=GEMMA)
    with pytest.raises(ConfigError, match=r"System role not supported.*system_role to user"):
        tiny_local_model("gemma2", tokenizer=tokenizer).encode(ask("hi"))
    encoded = tiny_local_model("gemma2", tokenizer=tokenizer, system_role="user").encode(ask("hi"))
    assert encoded.text == "<bos><start_of_turn>user\nBe brief.\n\nhi<end_of_turn>\n<start_of_turn>model\n"
    assert encoded.ids.count(tokenizer.bos_token_id) == 1


def test_options_of_the_template():
    template = "{{ messages[0].content }}{{ messages[1].content }}{% if thinking %}<think>{% endif %}"
    model = tiny_local_model(tokenizer=tiny_tokenizer(template=template), template_options={"thinking": True})
    assert model.encode(ask("hi")).text == "Be brief.hi<think>"


def test_a_prompt_that_is_longer_than_the_context():
    model = tiny_local_model()
    long, short = model.reply([ask("x " * 600), ask("x")])
    assert isinstance(long, DataError)
    assert "the context of the model holds 512" in str(long)
    assert not isinstance(short, DataError)


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"batch_size": 0}, {"prompt_cache_mib": -1}])
def test_options_that_cannot_be_used(options):
    with pytest.raises(ConfigError):
        LocalModelConfig(path="", **options)


def test_an_answer_ends_before_a_text_that_stops_it():
    model = tiny_local_model()

    def ask(message: str, *stop: str) -> Request:
        return Request(step="a", prompt="P", pieces=(Piece(text=message),), max_new_tokens=12, stop=stop)

    whole, other = (each for each in model.reply([ask("x"), ask("yz")]) if isinstance(each, Reply))
    middle = len(whole.output) // 2
    text = whole.output[middle : middle + 2]
    first = whole.output.index(text)
    # In one batch with one that does not stop.
    cut, same = model.reply([ask("x", text), ask("yz")])
    assert isinstance(cut, Reply)
    assert same == other
    assert (cut.output, cut.finish) == (whole.output[:first], "stop")
    assert cut.output_ids == whole.output_ids[: len(cut.output_ids)]
    assert text in model.decode(cut.output_ids)
    assert text not in model.decode(cut.output_ids[:-1])
    # Tokens of the text that stops it have no text of the answer.
    assert cut.output_spans[-1][1] == len(cut.output)
    assert "".join(cut.output[start:stop] for start, stop in cut.output_spans) == cut.output
    # Nor are they there where the text never comes.
    (never,) = model.reply([ask("x", "\u2603")])
    assert never == whole


def test_a_model_that_is_spread_over_devices(tmp_path):
    save_tiny_model(str(tmp_path / "m"))
    plain = LocalModel.load(LocalModelConfig(path=str(tmp_path / "m")))
    spread = LocalModel.load(LocalModelConfig(path=str(tmp_path / "m"), device_map="auto"))
    assert spread.reply([ask(TEXTS[0])]) == plain.reply([ask(TEXTS[0])])


def test_fewer_bits_need_a_package(tmp_path):
    save_tiny_model(str(tmp_path / "m"))
    with pytest.raises(ConfigError, match="weight_bits 4 needs the package bitsandbytes, which is not installed: pip"):
        LocalModel.load(LocalModelConfig(path=str(tmp_path / "m"), weight_bits=4))
