"""Soft prompts and gates in what is read, in a file, and in generation."""

import pytest
import torch

from framework.errors import ConfigError
from framework.gbc.models import LocalModel, LocalModelConfig
from framework.gbc.steering import gate_name, gates_of, read_steering, through_gates, with_soft_prompt, write_steering
from framework.gbc.trace import Block
from framework.testing.language_models import save_tiny_model

PROMPT = Block(source="b", kind="prompt", text="", chars=(0, 0), tokens=(0, 1))
MESSAGE = Block(source="a@2", kind="message", text="", chars=(0, 0), tokens=(2, 4))


def test_a_gate_by_hand():
    gates = {gate_name("a", "b"): torch.tensor(0.25)}
    ((block, gate),) = gates_of("b@3", [PROMPT, MESSAGE], gates)
    assert block is MESSAGE
    embeddings = torch.arange(10.0).reshape(5, 2)
    found = through_gates(embeddings, [(block, gate)], torch.tensor([1.0, 2.0]))
    assert found.tolist() == [[0, 1], [2, 3], [1 + 0.25 * 3, 2 + 0.25 * 3], [1 + 0.25 * 5, 2 + 0.25 * 5], [8, 9]]
    assert gates_of("c", [PROMPT, MESSAGE], gates) == []


def test_a_soft_prompt_follows_the_prompt():
    embeddings = torch.arange(6.0).reshape(3, 2)
    found = with_soft_prompt(embeddings, torch.full((1, 2), 9.0), [MESSAGE, PROMPT])
    assert found.tolist() == [[0, 1], [9, 9], [2, 3], [4, 5]]
    assert with_soft_prompt(embeddings, None, [PROMPT]) is embeddings


def test_a_file_of_both_is_read_by_the_model(tmp_path):
    save_tiny_model(tmp_path / "model")
    soft, gates = {"first": torch.rand(2, 32)}, {"first to last": torch.tensor(0.5)}
    write_steering(tmp_path / "best/soft.safetensors", soft, gates)
    path = str(tmp_path / "best/soft.safetensors")
    model = LocalModel.load(LocalModelConfig(path=str(tmp_path / "model"), soft_prompts=path))
    assert torch.equal(model.soft["first"], soft["first"])
    assert model.gates == gates
    with pytest.raises(ConfigError, match="shape"):
        read_steering(path, device="cpu", hidden_size=16)
    with pytest.raises(ConfigError, match="no soft prompts"):
        read_steering(tmp_path / "none", device="cpu", hidden_size=16)
