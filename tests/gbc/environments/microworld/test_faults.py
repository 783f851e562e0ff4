"""Planted faults: they cost success, only their culprit differs, and no word gives them away."""

from collections import Counter

import pytest

from framework.core.errors import ConfigError
from framework.gbc.environments.microworld.faults import KINDS, plant
from framework.gbc.environments.microworld.rules import RuleModel
from framework.gbc.environments.microworld.system import MODEL, draw_system, make_graph
from framework.gbc.environments.microworld.tasks import answer_loss, make_tasks
from framework.gbc.environments.microworld.world import candidate_prompts
from framework.gbc.execution.runner import run_graph


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_lowers_success_and_changes_its_culprit_alone(kind: str):
    lost = 0
    for seed in range(12):
        system = draw_system(seed)
        graph, fault = make_graph(system), plant(system, kind, seed=seed)
        assert fault.words == plant(system, kind, seed=seed).words
        changed = [name for name, prompt in graph.prompts.items() if fault.graph.prompts[name] != prompt]
        changed += [a.name for a, b in zip(graph.tools, fault.graph.tools, strict=True) if a.function != b.function]
        assert changed == [fault.culprit]
        traces = run_graph(fault.graph, {MODEL: RuleModel()}, make_tasks(system, 4, seed=seed))
        lost += any(answer_loss(trace).value > 0 for trace in traces)
    assert lost >= 4


@pytest.mark.slow
def test_healthy_prompts_have_the_words_of_faulty_ones():
    healthy, faulty = Counter(), Counter()
    for seed in range(200):
        system = draw_system(seed)
        fault = plant(system, list(KINDS)[seed % 4], seed=seed)
        healthy.update(" ".join(make_graph(system).prompts.values()).split())
        faulty.update(fault.graph.prompts[fault.culprit].split())
    assert not faulty.keys() - healthy.keys()
    assert min(healthy[word] for word in ("nothing", "full", "short")) >= 20


def test_faults_that_cannot_be():
    with pytest.raises(ConfigError, match="fault 'typo'"):
        plant(draw_system(0), "typo", seed=0)
    with pytest.raises(ConfigError, match="'route' in 'alpha'"):
        plant(draw_system(0), "route", seed=0, culprit="alpha")


def test_candidates_hold_the_healthy_prompt_and_wrong_ones():
    system = draw_system(4)
    candidates = candidate_prompts(system, num_wrong=5)
    assert candidates == candidate_prompts(system, num_wrong=5)
    for name, prompt in make_graph(system).prompts.items():
        assert prompt in candidates[name]
        assert len(set(candidates[name])) == 6
    with pytest.raises(ConfigError, match="num_wrong 6"):
        candidate_prompts(system, num_wrong=6)
