"""Language models of known shapes with random weights, to measure speed and memory on."""

from typing import Any, Literal, get_args

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from framework.errors import ConfigError

Shape = Literal["small", "qwen3-0.6b", "qwen3-4b"]
SETTINGS: dict[Shape, dict[str, Any]] = {
    "small": {
        "vocab_size": 8192,
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
    },
    "qwen3-0.6b": {
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "qwen3-4b": {
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
"""Arguments of `Qwen3Config`."""


def build_model(shape: Shape, device: str) -> PreTrainedModel:
    """A random Qwen3 of a shape, made where it runs: float32 on a CPU, bfloat16 elsewhere.

    Raises:
        ConfigError: an unknown shape, or a device that cannot be used.
    """
    if shape not in SETTINGS:
        raise ConfigError(f"shape {shape!r}", mend=f"use one of {', '.join(get_args(Shape))}")
    config = Qwen3Config(**SETTINGS[shape], max_position_embeddings=4096, tie_word_embeddings=True)
    config.dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Qwen3ForCausalLM(config)
        model.to(dtype=config.dtype)  # pyright: ignore[reportCallIssue]
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used ({str(error).splitlines()[0]})", mend="use cpu") from error
    return model.eval().requires_grad_(False)
