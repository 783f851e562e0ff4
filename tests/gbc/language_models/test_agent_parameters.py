"""Soft prompts and gates in what is read, in a file, and in generation."""

from dataclasses import replace

import pytest
import torch

from framework.core.errors import ConfigError
from framework.gbc.graph.trace import Block
from framework.gbc.language_models.agent_parameters import (
    BoundParameters,
    apply_gates,
    gate_name,
    gate_scale,
    load_soft_prompts,
    message_gates,
    save_soft_prompts,
    soft_prompt_position,
)
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.testing.language_models import save_tiny_model

PROMPT = Block(source="b", kind="prompt", text="", chars=(0, 0), tokens=(0, 1))
MESSAGE = Block(source="a@2", kind="message", text="", chars=(0, 0), tokens=(2, 4))


def test_a_gate_by_hand():
    gates = {gate_name("a", "b"): torch.tensor(0.25)}
    ((block, gate),) = message_gates("b@3", [PROMPT, MESSAGE], gates)
    assert block is MESSAGE
    embeddings = torch.arange(10.0).reshape(5, 2)
    scale = gate_scale([(block, gate)], 5, torch.device("cpu"))
    assert scale.tolist() == [1, 1, 0.25, 0.25, 1]
    found = apply_gates(embeddings, scale, torch.tensor([1.0, 2.0]))
    assert found.tolist() == [[0, 1], [2, 3], [1 + 0.25 * 3, 2 + 0.25 * 3], [1 + 0.25 * 5, 2 + 0.25 * 5], [8, 9]]
    assert message_gates("c", [PROMPT, MESSAGE], gates) == []


def test_a_soft_prompt_follows_the_prompt():
    embeddings = torch.arange(6.0).reshape(3, 2)
    position = soft_prompt_position([MESSAGE, PROMPT])
    bound = BoundParameters(agent="b", position=position, soft_prompt=torch.full((1, 2), 9.0))
    assert bound.apply(embeddings).tolist() == [[0, 1], [9, 9], [2, 3], [4, 5]]
    # In two parts: it is in the one with the token before it.
    assert bound.apply(embeddings[:1]).tolist() == [[0, 1], [9, 9]]
    assert bound.apply(embeddings[1:], first=1).tolist() == [[2, 3], [4, 5]]
    at_the_start = replace(bound, position=0)
    assert at_the_start.apply(embeddings[:1]).tolist() == [[9, 9], [0, 1]]
    assert at_the_start.apply(embeddings[1:], first=1).tolist() == [[2, 3], [4, 5]]


def test_gates_of_a_part_of_the_input_and_after_it():
    scale, neutral = torch.tensor([1.0, 1.0, 0.0, 0.5]), torch.tensor([1.0, 1.0])
    bound = BoundParameters(agent="b", position=1, scale=scale, mean_embedding=neutral)
    assert bound.apply(torch.full((3, 2), 3.0), first=2).tolist() == [[1, 1], [2, 2], [3, 3]]
    shorter = bound.without(2, 3)
    assert shorter.scale is not None
    assert (shorter.position, shorter.scale.tolist()) == (1, [1, 1, 0.5])
    assert [bound.without(0, stop).position for stop in (0, 1, 2)] == [1, 0, 0]


def test_a_file_of_both_is_read_by_the_model(tmp_path):
    save_tiny_model(tmp_path / "model")
    soft, gates = {"first": torch.rand(2, 32)}, {"first to last": torch.tensor(0.5)}
    save_soft_prompts(tmp_path / "best/soft.safetensors", soft, gates)
    path = str(tmp_path / "best/soft.safetensors")
    model = LocalModel.load(LocalModelConfig(path=str(tmp_path / "model"), soft_prompts=path))
    assert torch.equal(model.soft["first"], soft["first"])
    assert model.gates == gates
    with pytest.raises(ConfigError, match="shape"):
        load_soft_prompts(path, device="cpu", hidden_size=16)
    with pytest.raises(ConfigError, match="no soft prompts"):
        load_soft_prompts(tmp_path / "none", device="cpu", hidden_size=16)
