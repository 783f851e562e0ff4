"""Candidates: trials are spent on the agents that are blamed."""

import random
from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.gbc.attribution.culprits.diagnosis import Diagnosis
from framework.gbc.attribution.results import AgentCredit
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.evidence import Evidence
from framework.gbc.prompt_search.search import OptimizeOptions, optimize
from framework.gbc.prompt_search.state import OptimizerState
from tests.gbc.prompt_search.one_word_agents import GRAPH, TASKS, Obedient, loss, run


def test_blame_spends_no_trials_on_agents_that_nobody_reads():
    idle = tuple(
        Agent(name=f"idle{i}", prompt="copy", model="m", reads=("user",), estimator="pass_through") for i in range(3)
    )
    graph = Graph(agents=(*idle, *GRAPH.with_prompts({"end": "mumble"}).agents), outputs=("end",))
    candidates = {**{agent.name: ["shout", "join"] for agent in idle}, "end": ["copy", "shout", "join"]}
    tried: dict[str, int] = {}
    for spread in ("credit", "even"):
        proposer: Any = Candidates(candidates, spread=spread)
        options = OptimizeOptions(seed=3, batch_size=2)
        state = optimize(graph, {"m": Obedient()}, loss, proposer, train=TASKS[:2], held_out=TASKS[2:], options=options)
        assert state.loss == 0.0
        tried[spread] = sum("idle" in name for trial in state.trials for name in trial.changes)
    assert tried["credit"] == 0 < tried["even"]


def test_agents_are_tried_in_the_order_of_the_diagnosis():
    credits = (AgentCredit(name="left", through=1.0, own=1.0, walk=1.0),)
    diagnosis = Diagnosis(probabilities={"left": 0.1, "right": 0.2, "end": 0.7}, method="evidence", num_runs=1)
    evidence = Evidence(graph=GRAPH, traces=(), losses=(), attributions=(), credits=credits, diagnosis=diagnosis)
    candidates = {"left": ["a"], "right": ["b"], "end": ["c"]}
    state = OptimizerState(prompts=GRAPH.prompts, loss=1.0, seed=0, step=0, evaluations=1, runs=1)
    by_credit = Candidates(candidates)
    assert by_credit.propose(state, evidence, random.Random(0)) == [{"left": "a"}]
    by_diagnosis = Candidates(candidates, by="diagnosis")
    assert by_diagnosis.propose(state, evidence, random.Random(0)) == [{"end": "c"}]
    assert (by_credit.needs_diagnosis, by_diagnosis.needs_diagnosis) == (False, True)


def test_candidates_that_cannot_be_used():
    with pytest.raises(ConfigError, match="no candidates"):
        Candidates({"left": []})
    with pytest.raises(ConfigError, match="candidates for nobody"):
        run({"left": "mumble"}, Candidates({"nobody": ["x"]}))
