"""Processes that use a sharded model for as long as each needs get what a whole model gives."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from framework.gbc.attribution.options import GradientOptions
from framework.gbc.attribution.token_gradients import token_scores
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.language_models.interface import Piece, Request
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.training.collective_models import CollectiveModels, shard_layers
from framework.testing.language_models import tiny_language_model, tiny_tokenizer
from framework.testing.processes.forked import run_forked
from framework.training.strategies.placement import Placement


def make_models() -> list[LocalModel]:
    tokenizer = tiny_tokenizer()
    config = LocalModelConfig(path="", batch_size=2)
    return [LocalModel(tiny_language_model(seed=s, vocabulary=len(tokenizer)), tokenizer, config) for s in (0, 1)]


def use(models: list[LocalModel], rank: int) -> dict[str, Any]:
    """Rank 0 does much with both models, rank 1 little and in another order; rank 2 nothing."""

    def said(model: LocalModel, count: int, tokens: int) -> list[str]:
        texts = [("north " * (1 + number)).strip() for number in range(count)]
        requests = [
            Request(step="a", prompt="Say.", pieces=(Piece(text=text, source="u"),), max_new_tokens=tokens)
            for text in texts
        ]
        replies = model.reply(requests)
        return [getattr(reply, "output", "") for reply in replies]

    def scores(model: LocalModel, count: int, **options: Any) -> list[list[list[float]]]:
        rows = [TokenRow(input_ids=tuple(range(10, 18 + n)), prefix=2, output_ids=(20, 21, 22)) for n in range(count)]
        found = token_scores(model.model, rows, GradientOptions(gradients_at_once=1, **options))
        return [score.l1.tolist() for score in found]

    one, other = models
    if rank == 0:
        return {
            "said": said(one, 5, 7) + said(other, 1, 3),
            "scores": scores(other, 3, scalar="finegrained") + scores(one, 1, checkpointing=True),
        }
    if rank == 1:
        return {"scores": scores(one, 2), "said": said(other, 2, 4)}
    return {}


def sharded(rank_of: dict[str, int]) -> dict[str, Any]:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    placement = Placement(
        device=torch.device("cpu"),
        shard=lambda module, methods, frozen: fully_shard(module, mesh=mesh, reshard_after_forward=True) and None,
    )
    models = make_models()
    layers = [shard_layers(model, placement) for model in models]
    assert all(isinstance(p, DTensor) for blocks in layers for layer in blocks for p in layer.module.parameters())
    held = sum(p.to_local().numel() for p in layers[0][0].module.parameters())
    collective_models = CollectiveModels(layers)
    rank = rank_of[str(dist.get_rank())]
    found = []
    for _ in range(2):
        with collective_models.synchronized():
            found.append(use(models, rank))
    after = sum(p.to_local().numel() for p in layers[0][0].module.parameters())
    dist.destroy_process_group()
    return {"found": found, "held": held, "after": after}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(0, 1), (1, 2)])
def test_processes_with_unlike_work(ranks: tuple[int, int]):
    run = run_forked(sharded, 2, rank_of={str(place): rank for place, rank in enumerate(ranks)})
    models = make_models()
    whole = sum(p.numel() for p in models[0].model.get_decoder().layers[0].parameters())
    for place, rank in enumerate(ranks):
        expected, result = use(models, rank), run.results[place]
        assert result["held"] == result["after"] == whole / 2
        for found in result["found"]:
            assert found.get("said") == expected.get("said")
            ours, theirs = (
                torch.tensor([value for rows in each.get("scores", []) for row in rows for value in row])
                for each in (found, expected)
            )
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
