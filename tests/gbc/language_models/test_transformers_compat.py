"""What we use of transformers beyond its documentation: each test says what moved when a new version moves it."""

from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
import torch
import transformers
from transformers import DynamicCache

from framework.core.errors import ConfigError
from framework.gbc.language_models import transformers_compat as compat
from framework.testing.language_models import Family, tiny_language_model, tiny_tokenizer

HERE = "see framework/gbc/language_models/transformers_compat.py"


def moved(what: str) -> str:
    return f"transformers {transformers.__version__} moved {what}: {HERE}"


def test_a_layer_of_a_cache():
    layer = getattr(import_module("transformers.cache_utils"), "DynamicLayer", None)
    assert layer is not None, moved("transformers.cache_utils.DynamicLayer")
    for name in ("update", "lazy_initialization"):
        assert callable(getattr(layer, name, None)), moved(f"DynamicLayer.{name}")
    cache = DynamicCache()
    assert isinstance(getattr(cache, "layers", None), list), moved("DynamicCache.layers, a list")
    model = tiny_language_model()
    model(input_ids=torch.tensor([[5, 6, 7]]), past_key_values=cache, use_cache=True)
    assert all(isinstance(each, layer) for each in cache.layers), moved("the layers that a DynamicCache makes")
    for name in ("keys", "values"):
        states = getattr(cache.layers[0], name, None)
        assert isinstance(states, torch.Tensor), moved(f"DynamicLayer.{name}")
        assert states.shape == (1, 2, 3, 8), moved(f"the axes of DynamicLayer.{name}, batch heads token width")


def test_a_frozen_layer_keeps_only_the_prefix():
    model = tiny_language_model()
    cache = DynamicCache()
    model(input_ids=torch.tensor([[5, 6, 7]]), past_key_values=cache, use_cache=True)
    frozen = compat.frozen_cache(compat.cached_states(cache))
    after = torch.tensor([[8, 9]])
    whole = model(input_ids=torch.tensor([[5, 6, 7, 8, 9]])).logits[:, 3:]
    for _ in range(2):
        found = model(input_ids=after, past_key_values=frozen, use_cache=True).logits
        torch.testing.assert_close(found, whole, msg=moved("how a model updates its cache"))
    assert frozen.get_seq_length() == 3, moved("DynamicCache.get_seq_length, of a layer's keys")


def test_a_cache_of_other_states():
    cache = DynamicCache()
    cache.layers.append(object())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="object of a cache does not keep keys and values"):
        compat.cached_states(cache)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3"])
def test_the_decoder_layers(family):
    model = tiny_language_model(family)
    try:
        layers = compat.decoder_layers(model)
    except AttributeError as error:
        pytest.fail(moved(f"PreTrainedModel.get_decoder().layers ({error})"))
    assert [type(layer).__name__.endswith("DecoderLayer") for layer in layers] == [True] * 3, moved("decoder layers")


def test_the_attention_implementation():
    model = tiny_language_model()
    before = compat.attention_implementation(model)
    for name in ("eager", "sdpa"):
        with compat.use_attention(model, name):
            assert hasattr(model.config, "_attn_implementation"), moved("config._attn_implementation")
            assert compat.attention_implementation(model) == name, moved("what set_attn_implementation sets")
    assert compat.attention_implementation(model) == before


def test_attention_that_is_capped_is_not_given_to_sdpa(tmp_path: Path):
    tiny_language_model("gemma2").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model, _ = compat.load_pretrained(str(tmp_path), dtype=torch.float32, attention=None)
    assert compat.attention_implementation(model) == "eager"
    with pytest.raises(ValueError, match=r"Gemma2ForCausalLM .*(eager|sdpa|scaled_dot_product)"):
        compat.load_pretrained(str(tmp_path), dtype=torch.float32, attention="sdpa")


def test_embeddings_and_their_number():
    model = tiny_language_model("gemma2", vocabulary=50)
    assert compat.vocabulary_size(model) == 50, moved("get_input_embeddings().num_embeddings")
    found = compat.embeddings_of(model, torch.tensor([3]))
    scaled = model.get_input_embeddings().weight[3] * 32**0.5
    torch.testing.assert_close(found[0], scaled, msg=moved("where Gemma scales its embeddings"))


@pytest.mark.parametrize("family", get_args(Family))
def test_models_that_keep_keys_and_values_alone(family):
    assert compat.keeps_keys_and_values(tiny_language_model(family)), moved("DynamicCache(config=...).layers")
