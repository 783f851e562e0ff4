"""Tiny language models with random weights and tokenizers trained on the spot."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from framework.gbc.language_models.local import LocalModel, LocalModelConfig

Family = Literal["llama", "qwen3", "gemma2", "gemma3"]
Hybrid = Literal["qwen3_next", "falcon_h1", "nemotron_h"]
"""Families whose layers keep other states than keys and values."""
_OF_HYBRIDS: dict[str, dict[str, Any]] = {
    "qwen3_next": {
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "head_dim": 8,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "falcon_h1": {
        "num_hidden_layers": 2,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
    },
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "full_attention", "mlp"],
        "head_dim": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 2,
        "chunk_size": 8,
    },
}

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The template of Qwen's models, without tools and thinking."""

GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ message.role }}\n{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""The template of Gemma 2: no system role, and it trims."""

_TEXTS = (
    "the manager asks the worker to book a cheap hotel in the north of the town for two nights",
    "area=north; price=cheap; stars=4; name=the old mill",
    "Hello, I need a train from Cambridge to London on Friday at 10:15, please.",
)


class LinearLM(PreTrainedModel):
    """Logits are linear in the sum of all embeddings so far: logits = W Σ x."""

    def __init__(self, embeddings: list[list[float]], weights: list[list[float]]) -> None:
        super().__init__(PreTrainedConfig())
        self.embed = nn.Embedding.from_pretrained(torch.tensor(embeddings))
        self.head = nn.Linear(len(weights[0]), len(weights), bias=False)
        self.head.weight = nn.Parameter(torch.tensor(weights))
        self.generation_config = GenerationConfig()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def forward(
        self,
        *,
        inputs_embeds: Float[Tensor, "batch token value"],
        attention_mask: Shaped[Tensor, "batch token"] | None = None,
        **_ignored: object,
    ) -> CausalLMOutputWithPast:
        # Without a mask, padding stands behind.
        seen = inputs_embeds if attention_mask is None else inputs_embeds * attention_mask[..., None]
        return CausalLMOutputWithPast(logits=self.head(seen.cumsum(dim=1)))


def tiny_tokenizer(
    *,
    kind: Literal["bytes", "metaspace"] = "bytes",
    template: str | None = CHATML,
    texts: Iterable[str] = _TEXTS,
    vocabulary: int = 400,
) -> PreTrainedTokenizerFast:
    """A BPE tokenizer, trained on the spot.

    Args:
        kind: `bytes` as GPT-2 and Qwen, `metaspace` with ▁ and byte fallback as Llama 2 and Gemma.
        template: of chats, by Jinja; None for a tokenizer without one.
        texts: what it is trained on.
        vocabulary: tokens, at least 150 more than the special ones.
    """
    special = ["<pad>", "<bos>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        special += ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        alphabet = []
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, len(special) + 150),
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def tiny_language_model(
    family: Family = "qwen3", *, vocabulary: int = 600, seed: int = 0, **changes: Any
) -> PreTrainedModel:
    """A random model of a family in evaluation mode, its parameters frozen; Gemma's window is 8 tokens.

    Args:
        family: its architecture.
        vocabulary: tokens.
        seed: of its weights.
        changes: of its configuration.
    """
    changes = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 3,
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "llama":
            model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**changes))
        elif family == "qwen3":
            model = Qwen3ForCausalLM(Qwen3Config(**changes))
        elif family == "gemma2":
            settings = {"attn_implementation": "eager", "sliding_window": 8, **changes}
            model = Gemma2ForCausalLM(Gemma2Config(**settings))
        else:
            model = Gemma3ForCausalLM(Gemma3TextConfig(**{"sliding_window": 8, **changes}))
    return model.eval().requires_grad_(False)


def tiny_hybrid_model(family: Hybrid, *, vocabulary: int = 600, seed: int = 0) -> PreTrainedModel:
    """A random model of a family with layers of linear attention or state spaces, in evaluation mode and frozen.

    Args:
        family: its architecture.
        vocabulary: tokens.
        seed: of its weights.
    """
    options = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 3,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(family, **options, **_OF_HYBRIDS[family])
        model = AutoModelForCausalLM.from_config(config)
    return model.eval().requires_grad_(False)


def save_tiny_model(
    folder: str | Path, family: Family = "llama", *, template: str | None = CHATML, **changes: Any
) -> None:
    """Makes a folder with a random model and a tokenizer, as `LocalModel.load` reads it.

    Args:
        folder: gets both.
        family: the model's architecture.
        template: of chats, by Jinja.
        changes: of the model's configuration.
    """
    tokenizer = tiny_tokenizer(template=template)
    tiny_language_model(family, vocabulary=len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_local_model(
    family: Family = "qwen3", *, tokenizer: PreTrainedTokenizerFast | None = None, **options: Any
) -> LocalModel:
    """A random model with a tokenizer.

    Args:
        family: the model's architecture.
        tokenizer: of its texts; a tiny one by default.
        **options: of `LocalModelConfig`.
    """
    tokenizer = tokenizer or tiny_tokenizer()
    model = tiny_language_model(family, vocabulary=len(tokenizer))
    return LocalModel(model, tokenizer, LocalModelConfig(path="", **options))
