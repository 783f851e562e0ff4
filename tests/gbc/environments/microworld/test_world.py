"""The shipped model, and the benchmarks on a handful of episodes."""

from pathlib import Path

import pytest

from framework.bench.prompt_repair import bench_repair
from framework.gbc.attribution.options import AttributionOptions, ConnectionOptions, CounterfactualEditOptions
from framework.gbc.environments.microworld.episodes import Remembered, draw_episodes
from framework.gbc.environments.microworld.fault_localization import (
    score_edits,
    score_gradients,
    score_leave_one_out,
    score_random,
)
from framework.gbc.environments.microworld.prompt_repair import draw_damages, repair, success_of
from framework.gbc.environments.microworld.world import KINDS, draw_system, load_model, make_graph, make_tasks


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.fixture(scope="module")
def episodes(model):
    return draw_episodes(model, 5, seed=3)


def test_the_shipped_model_solves_healthy_tasks(model):
    success = [
        success_of(make_graph(system), model, make_tasks(system, 5, seed=seed))
        for seed, system in ((seed, draw_system(1000 + seed)) for seed in range(6))
    ]
    assert sum(success) / len(success) >= 0.98


def test_the_shipped_model_is_small():
    folder = Path(load_model().config.path)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8e6


def test_episodes_fail_because_of_their_fault(model, episodes):
    assert [episode.fault.kind for episode in episodes] == list(KINDS)
    for episode in episodes:
        assert episode.loss.value > 0
        assert success_of(make_graph(episode.system), model, [episode.task]) == 1
        assert success_of(episode.fault.graph, model, [episode.task]) == 0


def test_the_same_seed_gives_the_same_episode(model):
    one, other = (draw_episodes(model, 1, seed=3, kinds=("drop",)) for _ in range(2))
    assert one[0].trace == other[0].trace


def test_every_method_is_scored_and_its_calls_are_counted(model, episodes):
    nodes = [len(episode.fault.graph.agents) + len(episode.fault.graph.tools) for episode in episodes]
    chance = score_random(episodes)
    assert chance.top1 == pytest.approx(sum(1 / count for count in nodes) / 5)
    assert chance.cost.answers == chance.cost.passes == 0
    left = score_leave_one_out(model, episodes)
    # Each agent's silence makes those after it answer again.
    workers = [len(episode.system.workers) for episode in episodes]
    tools = [len(episode.fault.graph.tools) for episode in episodes]
    assert left.cost.answers == sum(2 * w + 1 + t for w, t in zip(workers, tools, strict=True))
    scores = score_gradients(model, episodes, scalars=("finegrained",))
    scores += score_edits(model, episodes, edits={"edits": CounterfactualEditOptions()})
    assert len({score.method for score in scores}) == 4 * 2 + 2
    for score in scores:
        assert score.cost.answers == 0
        # Edits look at what each agent could have said, and then at those whose words were wrong.
        passes = sum(w + 2 for w in workers)
        assert score.cost.passes == passes if "edits" not in score.method else passes <= score.cost.passes <= 2 * passes
        assert score.top1 == pytest.approx(sum(score.hits) / 5)
        assert score.by_kind == pytest.approx(dict(zip(KINDS, score.hits, strict=True)))


def test_repair_wins_back_what_was_lost(model):
    damages = draw_damages(model, 1, num_tasks=4, seed=5)
    attribution = AttributionOptions(connections=ConnectionOptions(prompts=True, code=True))
    repairs = list(repair(model, damages, attribution=attribution, num_wrong=1))
    assert [each.optimizer for each in repairs] == ["candidates/blame", "candidates/even"]
    for each in repairs:
        assert each.won_back >= 0.95
        assert 1 <= each.evaluations <= 14


def test_bench_repair(tmp_path: Path):
    record = bench_repair(tmp_path / "repair.json", num_faults=1, num_tasks=4, num_wrong=1)
    assert len(record["repairs"]) == 2
    assert record["faulty_success"] < record["healthy_success"]


def test_answers_are_remembered(model, episodes):
    remembered = Remembered(model)
    success_of(episodes[0].fault.graph, remembered, [episodes[0].task])
    known = dict(remembered.known)
    success_of(episodes[0].fault.graph, remembered, [episodes[0].task])
    assert remembered.known == known
