"""Language models of known shapes with random weights and answers of theirs, to measure speed and memory on.

What is compared takes turns within one run, and ratios are medians over the rounds: on a shared machine they are what
can be trusted. On a CPU, seconds are those of the processor, all threads together, so that other work on the machine
does not count.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from framework.bench.record import machine_of
from framework.core.errors import ConfigError
from framework.gbc.attribution.options import Scalar
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.language_models.generation import pad_left
from framework.gbc.language_models.layers.fast import use_fast_layers

Shape = Literal["small", "qwen3-0.6b", "qwen3-4b"]
Dtype = Literal["auto", "float32", "bfloat16"]
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


def check_counts(**counts: int | Sequence[object]) -> None:
    """Whether each is at least 1, and of a list whether it names some and all are. Raises ConfigError."""
    for name, value in counts.items():
        values = [value] if isinstance(value, int) else value
        if not values or any(isinstance(each, int) and each < 1 for each in values):
            raise ConfigError(f"{name} is {value}", hint="give at least 1")


def facts_of(device: str) -> dict[str, object]:
    """What numbers of language models depend on, for their record."""
    return {"machine": machine_of(device), "torch": str(torch.__version__), "threads": torch.get_num_threads()}


def build_model(shape: Shape, device: str, dtype: Dtype = "auto") -> PreTrainedModel:
    """A random Qwen3 of a shape, made where it runs, whose attention is that of the framework's local models.

    Args:
        shape: one of `SETTINGS`.
        device: where it runs, such as cpu or cuda.
        dtype: of its weights; `auto` is float32 on a CPU and bfloat16 elsewhere.

    Raises:
        ConfigError: an unknown shape, or a device that cannot be used.
    """
    if shape not in SETTINGS:
        raise ConfigError(f"shape {shape!r}", hint=f"use one of {', '.join(get_args(Shape))}")
    config = Qwen3Config(**SETTINGS[shape], max_position_embeddings=4096, tie_word_embeddings=True)
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    config.dtype = getattr(torch, dtype)
    try:
        with torch.device(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Qwen3ForCausalLM(config)
        model.to(dtype=config.dtype)  # pyright: ignore[reportCallIssue]
        # As `LocalModel` does.
        use_fast_layers(model)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used ({str(error).splitlines()[0]})", hint="use cpu") from error
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured: a model and the lengths of an answer, in tokens.

    Attributes:
        shape: of the model.
        device: where it runs.
        prompt: tokens without gradients.
        read: tokens with gradients.
        new: generated tokens.
        scalar: what is differentiated.
    """

    shape: Shape
    device: str
    prompt: int
    read: int
    new: int
    scalar: Scalar

    def row(self, number: int = 0) -> TokenRow:
        """Random tokens: the same prompt for every number, the rest its own."""
        sizes = {"prompt": self.prompt, f"{number} read": self.read, f"{number} new": self.new}
        parts = {}
        for name, size in sizes.items():
            generator = np.random.default_rng(list(name.encode()))
            parts[name] = tuple(generator.integers(4, SETTINGS[self.shape]["vocab_size"], size).tolist())
        prompt, read, new = parts.values()
        return TokenRow(input_ids=prompt + read, prefix=self.prompt, output_ids=new)


def generate_answers(model: PreTrainedModel, rows: Sequence[TokenRow], new: int) -> None:
    """As `LocalModel.generate`: greedy, with a cache, no end token.

    Args:
        model: generates.
        rows: the answers; their inputs are used.
        new: generated tokens of each.
    """
    ids, mask = pad_left([row.input_ids for row in rows], 0, model.device)
    options = GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=0)
    with torch.no_grad():
        model.generate(ids, attention_mask=mask, generation_config=options)  # pyright: ignore[reportCallIssue]


def measure_in_turns(
    ways: Mapping[str, Callable[[], object]], device: str, rounds: int, *, warm_up: int = 1
) -> dict[str, np.ndarray]:
    """Seconds of each way in each round, after some that do not count.

    Args:
        ways: what is measured, by name.
        device: that it runs on; a GPU is waited for.
        rounds: how often each is measured.
        warm_up: rounds that do not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(warm_up + rounds):
        for name, way in ways.items():
            started = _now(device)
            way()
            if index >= warm_up:
                seconds[name].append(_now(device) - started)
    return {name: np.array(times) for name, times in seconds.items()}


def _now(device: str) -> float:
    """Seconds; of a GPU when its work is done."""
    if not device.startswith("cuda"):
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
