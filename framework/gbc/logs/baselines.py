"""Who is named without looking at any gradient: what blame has to beat before it says anything.

Ours: the longest message, the first, the last, the agent that speaks most often, every one with the same probability,
and a surrogate that has learnt nothing. In logs of failures the longest message alone names the agent about as often as
a language model that is asked.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from framework.gbc.language_models.local import LocalModel
from framework.gbc.logs.surrogate import ReadLog


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Who is named for a log with which probability: a verdict without doubt, or chance.

    Attributes:
        agents: probability by agent.
        steps: probability by message.
    """

    agents: Mapping[str, float]
    steps: Mapping[int, float]


def candidates(read: ReadLog) -> list[int]:
    """Numbers of the messages that can be named: those of agents and tools."""
    return [step_number(step.name) for step in read.trace.steps if step.kind != "user"]


def step_number(step: str) -> int:
    """The message's number in a step's name."""
    return int(step.rpartition("@")[2])


def chance(read: ReadLog) -> Guess:
    """Every candidate with the same probability."""
    steps = candidates(read)
    agents = {read.log.messages[number].agent for number in steps}
    return Guess(agents=dict.fromkeys(agents, 1 / len(agents)), steps=dict.fromkeys(steps, 1 / len(steps)))


def longest(read: ReadLog) -> Guess:
    """The agents' message with most characters (what tools give is often longer); of equals, the first."""
    said = [number for number in candidates(read) if read.log.messages[number].role == "agent"]
    return _one(read, max(said, key=lambda number: len(read.log.messages[number].text)))


def first(read: ReadLog) -> Guess:
    """The first message."""
    return _one(read, candidates(read)[0])


def last(read: ReadLog) -> Guess:
    """The last message."""
    return _one(read, candidates(read)[-1])


def most_frequent(read: ReadLog) -> Guess:
    """The agent with most messages, of equals the first; each of its messages with the same probability."""
    agents = [read.log.messages[number].agent for number in candidates(read)]
    ((agent, count),) = Counter(agents).most_common(1)
    steps = [number for number in candidates(read) if read.log.messages[number].agent == agent]
    return Guess(agents={agent: 1.0}, steps=dict.fromkeys(steps, 1 / count))


BASELINES: Mapping[str, Callable[[ReadLog], Guess]] = {
    "longest message": longest,
    "first message": first,
    "last message": last,
    "most frequent agent": most_frequent,
    "chance": chance,
}
"""By the names that tables give them."""


def untrained_surrogate(model: LocalModel, *, seed: int = 0) -> LocalModel:
    """Two layers with random weights, and a surrogate's tokenizer and context.

    Args:
        model: the surrogate.
        seed: of the weights.
    """
    config = LlamaConfig(
        vocab_size=cast(nn.Embedding, model.model.get_input_embeddings()).num_embeddings,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=model.max_tokens,
    )
    with torch.random.fork_rng():  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        network = LlamaForCausalLM(config)
    plain = replace(model.config, soft_prompts=None, adapters=None, generation_cache="dynamic")
    cast(nn.Module, network).to(model.device)
    return LocalModel(network, model.tokenizer, plain)


def _one(read: ReadLog, number: int) -> Guess:
    return Guess(agents={read.log.messages[number].agent: 1.0}, steps={number: 1.0})
