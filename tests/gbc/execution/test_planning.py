"""What a training of agents needs, counted by hand from a small model's config.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.gbc.execution.planning import plan_recipe, read_shape
from framework.gbc.language_models.local import LocalModelConfig
from framework.training.planning import PlannedRun
from framework.training.strategies.config import StrategyConfig

HIDDEN, INNER, LAYERS, VOCABULARY = 32, 64, 3, 100
LAYER = 2 * HIDDEN**2 + 2 * HIDDEN * 16 + 3 * HIDDEN * INNER + 2 * HIDDEN
VALUES = LAYERS * LAYER + 2 * VOCABULARY * HIDDEN + HIDDEN


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    content = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    return tmp_path


def recipe(folder: Path, **more: Any) -> dict[str, Any]:
    agents = [
        {"name": "a", "prompt": "x" * 40, "model": "m", "reads": ["user"], "max_new_tokens": 20},
        {"name": "b", "prompt": "x" * 41, "model": "m", "reads": ["a", "user"], "max_new_tokens": 10},
    ]
    models = {"m": {"path": str(folder), "dtype": "bfloat16", "batch_size": 4}}
    return {"graph": {"agents": agents}, "models": models, "attribute_every_n_steps": 0, **more}


def run_of(name: Any = "ddp", num_devices: int = 1, **more: Any) -> PlannedRun:
    return PlannedRun(strategy=StrategyConfig(name=name), num_devices=num_devices, micro_batch=6, **more)


def test_the_shape_of_a_model(folder: Path):
    shape = read_shape(LocalModelConfig(path=str(folder), dtype="bfloat16"))
    assert (shape.values, shape.layer_values, shape.largest_layer) == (VALUES, LAYERS * LAYER, LAYER)
    assert shape.cache_bytes == 2 * LAYERS * 16 * 2


def test_generation_alone(folder: Path):
    plan = plan_recipe(recipe(folder), run_of())
    # Prompts of 10 and 11 tokens; a reads 256 of the task and says 20, b reads 20 + 256 and says 10.
    tokens = (10 + 256 + 20) + (11 + 20 + 256 + 10)
    assert plan.flops_per_sample == 2 * VALUES * tokens
    assert plan.memory.parameters == 2 * VALUES
    # Six tasks in batches of four: every token of either agent is said twice.
    assert plan.bytes_read == 2 * (20 + 10) * 2 * VALUES
    assert (plan.bytes_sent, plan.checkpoint_bytes, plan.memory.gradients) == (0, 0, 0)
    assert plan.memory.activations == 4 * 297 * 2 * LAYERS * 16 * 2


def test_soft_prompts_and_adapters_are_trained(folder: Path):
    adapters = {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]}
    soft = {"model": "m", "num_tokens": 5, "adapters": adapters}
    plain, plan = (plan_recipe(recipe(folder, soft=each), run_of(num_devices=2)) for each in (None, soft))
    trained = 2 * (5 * HIDDEN + LAYERS * 2 * ((HIDDEN + HIDDEN) + (HIDDEN + 16)))
    assert plan.num_parameters - plain.num_parameters == trained
    assert plan.memory.gradients == 4 * trained
    assert plan.checkpoint_bytes == 3 * 4 * trained
    # Each process sends, of two, as many bytes as the gradients have.
    assert plan.bytes_sent == 4 * trained
    # Five soft tokens more for each agent; forward and backward besides the generation.
    assert plan.flops_per_sample == 2 * VALUES * (286 + 297 + 10) * 3


def test_attribution_is_a_forward_and_a_backward_pass_more(folder: Path):
    plain, plan = (plan_recipe(recipe(folder) | {"attribute_every_n_steps": every}, run_of()) for every in (0, 1))
    assert plan.flops_per_sample == 3 * plain.flops_per_sample


def test_sharded_layers_are_gathered_for_every_token(folder: Path):
    plan = plan_recipe(recipe(folder), run_of("fsdp2", 4, num_nodes=2))
    assert plan.memory.parameters == 2 * (VALUES - LAYERS * LAYER + LAYERS * LAYER // 4)
    assert plan.bytes_sent == 2 * (20 + 10) * LAYERS * LAYER * 2 * 3 // 4
    assert plan.bytes_between_nodes == plan.bytes_sent // 2
    assert plan.memory.buffers == 2 * 2 * LAYER


def test_what_cannot_be_planned(folder: Path, tmp_path: Path):
    served = recipe(folder) | {"models": {"m": {"url": "http://localhost:1/v1", "model": "x"}}}
    with pytest.raises(ConfigError, match=r"no agent of model\.graph has a local model"):
        plan_recipe(served, run_of())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty has no config.json that can be used"):
        plan_recipe(recipe(tmp_path / "empty"), run_of())


KEPT = LAYERS * (8 * HIDDEN + 2 * 16 + 3 * INNER) * 2


def test_what_is_kept_for_backward_passes(folder: Path):
    tokens = 286 + 297
    soft = {"model": "m", "num_tokens": 0, "gates": True}
    two, all_tasks = (recipe(folder, soft=soft, run={"tasks_at_once": count}) for count in (2, 100))
    assert plan_recipe(two, run_of()).memory.activations == 2 * tokens * KEPT
    assert plan_recipe(all_tasks, run_of()).memory.activations == 6 * tokens * KEPT
    gradients = {"max_tokens": 500, "checkpointing": False}
    attributed = recipe(folder, attribution={"connections": {"gradients": gradients}}) | {"attribute_every_n_steps": 1}
    assert plan_recipe(attributed, run_of()).memory.activations == 500 * KEPT
    gradients["checkpointing"] = True
    assert plan_recipe(attributed, run_of()).memory.activations == 500 * (LAYERS * HIDDEN * 2 + KEPT // LAYERS)
