"""Optimization: keeps only what helps, spends on the blamed, goes on as if never interrupted."""

import json
from dataclasses import replace
from typing import Any

import pytest

from framework.core.errors import ConfigError, TrainingError
from framework.gbc.graph.spec import Graph
from framework.gbc.language_models.interface import LanguageModel, Reply, Request
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.search import OptimizeOptions, TaskRuns, optimize
from framework.gbc.prompt_search.state import OptimizerState, load_state
from tests.gbc.prompt_search.one_word_agents import CANDIDATES, GOOD, GRAPH, TASKS, Obedient, loss, run


@pytest.mark.parametrize("spread", ["credit", "even"])
@pytest.mark.parametrize("fault", list(GOOD))
def test_a_fault_is_repaired(fault: str, spread: Any):
    state = run({fault: "mumble"}, Candidates(CANDIDATES, spread=spread))
    assert state.finished
    assert state.loss == 0.0
    assert state.prompts == GOOD
    kept = [trial for trial in state.trials if trial.kept]
    assert {name for trial in kept for name in trial.changes} == {fault}
    assert state.evaluations == 1 + len(state.trials)
    assert state.runs == 2 + 2 * len(state.trials) * (2 if spread == "credit" else 1)


def test_what_does_not_help_is_not_kept_and_not_repeated():
    state = run({"left": "mumble"}, Candidates({"right": ["copy", "join"], "end": ["copy"]}))
    assert state.finished
    assert state.loss == 0.5
    assert not any(trial.kept for trial in state.trials)
    assert len({json.dumps(trial.changes) for trial in state.trials}) == len(state.trials) == 3
    small = run({"left": "mumble"}, Candidates({"left": ["copy"]}), min_gain=0.6)
    assert small.prompts["left"] == "mumble"


@pytest.mark.slow
def test_a_resumed_optimization_equals_the_uninterrupted_one(tmp_path):
    faults = {"left": "mumble", "right": "mumble"}
    whole = run(faults)
    path = tmp_path / "runs" / "state.json"
    run(faults, steps=2, save_to=path)
    stopped = load_state(path)
    assert stopped.step == 2
    assert len(stopped.trials) == 2
    assert run(faults, state=stopped, save_to=path) == whole == load_state(path)


def test_a_state_of_another_graph_is_refused():
    state = OptimizerState(seed=1, step=1, prompts={"a": "é"}, loss=0.5, evaluations=2, runs=4)
    with pytest.raises(ConfigError, match="another graph or seed"):
        run({}, state=state)


def test_what_cannot_be_optimized():
    with pytest.raises(ConfigError, match="steps 0"):
        OptimizeOptions(steps=0)
    with pytest.raises(ConfigError, match="0 held out"):
        optimize(GRAPH, {"m": Obedient()}, loss, Candidates(CANDIDATES), train=TASKS, held_out=[])


class Failing(Obedient):
    """Answers nothing but with the given prompt."""

    def __init__(self, working: str) -> None:
        self.working = working

    def _reply(self, request: Request) -> Reply:
        reply = super()._reply(request)
        return reply if request.prompt == self.working else replace(reply, output="")


def search(model: LanguageModel, candidates: dict[str, list[str]], runs: list[TaskRuns]) -> OptimizerState:
    graph = Graph(agents=(GRAPH.agents[0],)).with_prompts({"left": "mumble"})
    proposer, options = Candidates(candidates), OptimizeOptions(batch_size=2)
    return optimize(
        graph, {"m": model}, loss, proposer, train=TASKS[:2], held_out=TASKS[2:], options=options, on_runs=runs.append
    )


def test_failures_are_told_and_where_nothing_ever_finishes_it_is_an_error():
    runs: list[TaskRuns] = []
    with pytest.raises(TrainingError, match=r"every task failed, .* the first: agent 'left' says nothing"):
        search(Failing("none"), {"left": ["copy", "shout"]}, runs)
    # The prompts that there are, and both candidates.
    assert [each.kind for each in runs].count("held-out") == 3
    assert all(len(each.failures) == each.num_tasks == 2 for each in runs)
    runs.clear()
    state = search(Failing("copy"), {"left": ["copy"]}, runs)
    assert state.prompts == {"left": "copy"}
    assert [len(each.failures) for each in runs if each.kind == "held-out"] == [2, 0]


def test_what_a_trial_was_compared_with():
    state = run({"left": "mumble"})
    before = 0.5
    for trial in state.trials:
        assert trial.loss_before == before
        assert trial.kept == (trial.loss < before)
        before = trial.loss if trial.kept else before
