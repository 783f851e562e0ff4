"""The parts of transformers that its documentation does not promise, in one place.

`tests/gbc/language_models/test_transformers_compat.py` says which of them moved when a new version moves one.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    Cache,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward as _sdpa_attention_forward  # pyright: ignore
from transformers.masking_utils import sdpa_mask as _sdpa_mask  # pyright: ignore
from typing_extensions import override

from framework.core.errors import ConfigError

States = Float[Tensor, "batch heads _ width"]
"""Keys or values of one layer, `batch heads prefix width`."""


class _Loads(Protocol):
    def from_pretrained(self, path: str, **options: object) -> object: ...

    def from_config(self, config: object, **options: object) -> object: ...


class _Config(Protocol):
    hidden_size: int
    num_attention_heads: int

    def get_text_config(self) -> "_Config": ...


class _Generates(Protocol):
    def generate(self, **options: object) -> object: ...


class _Tokenizer(Protocol):
    def decode(self, ids: list[int], **options: object) -> object: ...

    def apply_chat_template(self, messages: list[Mapping[str, str]], **options: object) -> object: ...


class FrozenLayer(DynamicLayer):
    """A layer of a cache that gives prefix and new states together and keeps only the prefix.

    A decoder layer that runs again, as with checkpointing, so gets the same.

    Args:
        keys: of the prefix.
        values: of the prefix.
    """

    def __init__(self, keys: States, values: States) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    @override
    def update(
        self, key_states: States, value_states: States, *args: object, **kwargs: object
    ) -> tuple[States, States]:
        """Keys and values of the prefix and of the new tokens."""
        assert self.keys is not None
        assert self.values is not None
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class PassingLayer(DynamicLayer):
    """A layer of a cache that keeps nothing, for passes over whole texts."""

    @override
    def update(
        self, key_states: States, value_states: States, *args: object, **kwargs: object
    ) -> tuple[States, States]:
        """Keys and values as they are."""
        return key_states, value_states


def cached_states(cache: DynamicCache) -> list[tuple[States, States]]:
    """Keys and values of each layer.

    Raises:
        ConfigError: a layer that keeps other states, such as that of a state-space model.
    """
    found: list[tuple[States, States]] = []
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
            hint = "use a prefix of 0 tokens, or a model with attention in every layer"
            raise ConfigError(f"{type(layer).__name__} of a cache does not keep keys and values", hint=hint)
        found.append((layer.keys, layer.values))
    return found


def keeps_keys_and_values(model: PreTrainedModel) -> bool:
    """Whether keys and values are all that the model keeps of what it read.

    Layers of linear attention and state-space layers keep a state that cannot be cut into tokens.
    """
    if getattr(model, "_is_stateful", False):
        return False
    try:
        layers = DynamicCache(config=model.config).layers
    except KeyError:
        # A layer of a type that no cache knows.
        return False
    except AttributeError:
        # A configuration that does not tell of layers.
        return True
    return all(
        isinstance(layer, DynamicLayer) and not isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers
    )


def passing_cache(model: PreTrainedModel) -> Cache | None:
    """A cache that keeps nothing; None for a model that keeps other states than keys and values.

    Where there is none, transformers looks whether the positions are those of several texts in one row, and the host
    waits for the answer.
    """
    return Cache(layer_class_to_replicate=PassingLayer) if keeps_keys_and_values(model) else None


def frozen_cache(states: Sequence[tuple[States, States]]) -> DynamicCache:
    """A cache of `FrozenLayer`, from the keys and values of each layer."""
    cache = DynamicCache()
    cache.layers.extend(FrozenLayer(keys, values) for keys, values in states)
    return cache


class _DecoderOutput:
    """What a decoder gives, to a model that reads only its last hidden states; everything else is None."""

    def __init__(self, hidden: Float[Tensor, "batch token hidden"]) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, index: int | slice) -> object:
        return (self.last_hidden_state,)[index]


def logits_of(
    model: PreTrainedModel, hidden: Float[Tensor, "batch position hidden"]
) -> Float[Tensor, "batch position vocab"]:
    """What the model makes of its decoder's output: the head, and what follows it, such as a cap of the logits.

    The model's own `forward` runs with a decoder that gives `hidden`; without a decoder, it is the head alone.

    Args:
        model: the language model; hooks on it do not see this.
        hidden: as its head reads them.
    """
    decoder = cast(nn.Module, model.get_decoder())
    if decoder is model:
        return cast(nn.Module, model.get_output_embeddings())(hidden)
    kept = decoder.__dict__.get("forward")
    decoder.forward = lambda *_args, **_named: _DecoderOutput(hidden)
    try:
        return cast(Any, model).forward(inputs_embeds=hidden, use_cache=False).logits
    finally:
        if kept is None:
            del decoder.forward
        else:
            decoder.forward = kept


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The model's decoder layers, the first one first."""
    decoder = cast(nn.Module, model.get_decoder())
    return list(decoder.get_submodule("layers").children())


def sdpa_mask(**options: object) -> object:
    """A layer's mask for torch's attention, or None where `is_causal` says it; see transformers' function."""
    return cast(Any, _sdpa_mask)(**options)


def sdpa_attention(
    layer: nn.Module,
    query: Float[Tensor, "batch _ token _"],
    key: Float[Tensor, "batch _ _ _"],
    value: Float[Tensor, "batch _ _ _"],
    mask: object,
    **options: object,
) -> tuple[Float[Tensor, "batch token _ _"], None]:
    """A layer's attention by torch's; see transformers' function.

    Args:
        layer: whose attention it is.
        query: of the tokens.
        key: of all that is read.
        value: of all that is read.
        mask: as `sdpa_mask` makes it.
        options: others.
    """
    return cast(Any, _sdpa_attention_forward)(layer, query, key, value, mask, **options)


def attention_implementation(model: PreTrainedModel) -> str:
    """The attention implementation that the model uses, such as `sdpa`."""
    return str(getattr(model.config, "_attn_implementation", None) or "eager")


def set_attention(model: PreTrainedModel, implementation: str) -> None:
    """Another attention implementation for all of the model."""
    cast(Any, model).set_attn_implementation(implementation)


@contextmanager
def use_attention(model: PreTrainedModel, implementation: str) -> Generator[None, None, None]:
    """Within it the model's attention is computed by another implementation; `eager` gives its weights."""
    kept = attention_implementation(model)
    set_attention(model, implementation)
    try:
        yield
    finally:
        set_attention(model, kept)


def vocabulary_size(model: PreTrainedModel) -> int:
    """The number of tokens that have an embedding."""
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    return embeddings.num_embeddings


def embeddings_of(model: PreTrainedModel, ids: Int[Tensor, "..."]) -> Float[Tensor, "... hidden"]:
    """The tokens' embeddings as the model reads them; Gemma scales them."""
    return model.get_input_embeddings()(ids)


@dataclass(frozen=True)
class Spread:
    """Where and in how many bits a model is made, where it is not one device in full.

    Attributes:
        device_map: as transformers takes it.
        weight_bits: of linear layers, by bitsandbytes.
    """

    device_map: str | None = None
    weight_bits: Literal[4, 8] | None = None

    def options(self, dtype: torch.dtype) -> dict[str, object]:
        """What `from_pretrained` is told."""
        found: dict[str, object] = {} if self.device_map is None else {"device_map": self.device_map}
        if self.weight_bits is None:
            return found
        if find_spec("bitsandbytes") is None:
            problem = f"weight_bits {self.weight_bits} needs the package bitsandbytes, which is not installed"
            raise ConfigError(problem, hint="pip install bitsandbytes, or leave weight_bits out")
        quantized = BitsAndBytesConfig(
            load_in_8bit=self.weight_bits == 8, load_in_4bit=self.weight_bits == 4, bnb_4bit_compute_dtype=dtype
        )
        return {**found, "quantization_config": quantized}


def load_pretrained(
    path: str,
    *,
    dtype: torch.dtype,
    attention: str | None,
    spread: Spread = Spread(),
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and the tokenizer of a folder, by default on the CPU; raises what transformers raises.

    Nothing is downloaded and no code of the folder is run.

    Args:
        path: the folder.
        dtype: of the weights.
        attention: implementation; None for the architecture's own choice.
        spread: over devices, and in how many bits.

    Raises:
        ConfigError: fewer bits without bitsandbytes.
    """
    options: dict[str, object] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = cast(_Loads, AutoTokenizer).from_pretrained(path, **options)
    options |= spread.options(dtype)
    # Another default device, such as that of a trainer which makes its module, is to transformers a `device_map`.
    with torch.device("cpu"):
        model = cast(_Loads, AutoModelForCausalLM).from_pretrained(
            path, dtype=dtype, attn_implementation=attention, use_safetensors=True, **options
        )
    model = cast(PreTrainedModel, model)
    # Newer versions of transformers do not give these models torch's attention, which leaves the cap out.
    if attention_implementation(model) == "sdpa" and getattr(model.config, "attn_logit_softcapping", None):
        if attention is not None:
            raise ValueError(f"{type(model).__name__} caps its attention, which sdpa does not; choose eager")
        set_attention(model, "eager")
    return model, cast(PreTrainedTokenizerBase, tokenizer)


def meta_model(path: str) -> PreTrainedModel:
    """The model of a folder's config.json without weights, on the meta device; raises what transformers raises."""
    options = {"local_files_only": True, "trust_remote_code": False}
    config = cast(_Loads, AutoConfig).from_pretrained(path, **options)
    with torch.device("meta"):
        model = cast(_Loads, AutoModelForCausalLM).from_config(config, trust_remote_code=False)
    return cast(PreTrainedModel, model)


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Values that a token has in a layer.

    Attributes:
        hidden: in the residual stream.
        keys: in the keys of all heads together; values have as many.
        inner: in the feed-forward part.
    """

    hidden: int
    keys: int
    inner: int


def layer_widths(model: PreTrainedModel) -> Widths:
    """The widths of a decoder layer, by the model's config."""
    config = cast(_Config, model.config).get_text_config()
    heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    inner: int = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return Widths(hidden=config.hidden_size, keys=heads * head, inner=inner)


def hidden_size(model: PreTrainedModel) -> int:
    """Values of an embedding."""
    return int(cast(_Config, model.config).get_text_config().hidden_size)


def context_length(model: PreTrainedModel) -> int:
    """Most tokens that the model reads; a very large number where it names none."""
    return int(getattr(cast(_Config, model.config).get_text_config(), "max_position_embeddings", 2**31))


def generated(model: PreTrainedModel, **options: object) -> Int[Tensor, "batch token"]:
    """What `generate` gives: token ids."""
    output = cast(_Generates, model).generate(**options)
    assert isinstance(output, Tensor)
    return output


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of tokens, without special tokens and as it is."""
    plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    text = cast(_Tokenizer, tokenizer).decode(list(ids), **plain)
    assert isinstance(text, str)
    return text


def rendered_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]], variables: Mapping[str, object]
) -> str:
    """The text that a chat template makes of messages, ready for the answer; raises jinja2's `TemplateError`.

    Args:
        tokenizer: has the template.
        messages: with `role` and `content`.
        variables: further ones of the template.
    """
    text = cast(_Tokenizer, tokenizer).apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=True, **variables
    )
    assert isinstance(text, str)
    return text
