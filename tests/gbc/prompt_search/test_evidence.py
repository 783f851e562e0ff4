"""Evidence: failed tasks are attributed, and diagnosed together where a proposer asks for it."""

import pytest

from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.execution.runner import run_graph
from framework.gbc.prompt_search.evidence import gather_evidence
from tests.gbc.prompt_search.one_word_agents import GRAPH, TASKS, Obedient, loss


@pytest.mark.parametrize("diagnosed", [False, True])
def test_failed_tasks_are_diagnosed_together(diagnosed: bool):
    graph, models = GRAPH.with_prompts({"end": "mumble"}), {"m": Obedient()}
    traces = list(run_graph(graph, models, TASKS[:2]))
    found = gather_evidence(graph, models, loss, traces, AttributionOptions(), diagnosed=diagnosed)
    if diagnosed:
        assert found.diagnosis is not None
        assert found.diagnosis.num_runs == len(found.traces) > 0
        assert found.score_of("end", "diagnosis")[0] == found.diagnosis.probabilities.get("end", 0.0)
    else:
        assert found.diagnosis is None
        assert found.score_of("end", "diagnosis")[0] == 0.0
