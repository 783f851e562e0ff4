"""Evidence: failed tasks are attributed, and diagnosed together where a proposer asks for it."""

from dataclasses import replace

import pytest

from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
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


def test_a_diagnosis_from_roles_and_messages_takes_no_attribution(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("framework.gbc.prompt_search.evidence.attribute", None)
    graph, models = GRAPH.with_prompts({"end": "mumble"}), {"m": Obedient()}
    traces = list(run_graph(graph, models, TASKS[:2]))

    def told(trace: Trace) -> VerbalLoss:
        return replace(loss(trace), expected_output="right")

    found = gather_evidence(graph, models, told, traces, AttributionOptions(), diagnosed=True)
    assert found.diagnosis is not None
    assert found.diagnosis.method == "evidence"
    assert found.attributions == ()
