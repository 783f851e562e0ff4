"""A language model rewrites prompts: what it is shown, and what is read of its answers."""

import random

import pytest

from framework.core.errors import ConfigError
from framework.gbc.attribution.culprits.diagnosis import Diagnosis
from framework.gbc.execution.runner import run_graph
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.prompt_search.evidence import Evidence
from framework.gbc.prompt_search.opro import Opro
from framework.gbc.prompt_search.state import OptimizerState
from tests.gbc.prompt_search.one_word_agents import GOOD, GRAPH, TASKS, Obedient, run


class Writer(Obedient):
    """Answers with what it is told to, and keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), []

    def _reply(self, request: Request) -> Reply:
        self.asked.append(request)
        reply = super()._reply(Request(step="", prompt="", pieces=(), max_new_tokens=1))
        return Reply(**{**reply.__dict__, "output": self.answers.pop(0)})


def test_a_language_model_rewrites_the_prompt_of_the_blamed_agent():
    writer = Writer("I would not know.", "Well: <prompt>join all</prompt>", "<prompt>\njoin\n</prompt>")
    state = run({"end": "mumble"}, Opro(writer, by="through"))
    assert state.prompts == GOOD
    assert [trial.changes for trial in state.trials] == [{"end": "join all"}, {"end": "join"}]
    assert state.step == 3
    message = writer.asked[2].message
    for words in (
        "- end (agent): left, right",
        "- end: mumble",
        "- loss 1: join all",
        "Expected ",
        "loss <- end",
        "end said: ?",
        "Write a better prompt for end.",
    ):
        assert words in message


def test_of_failures_that_are_diagnosed_without_attribution_all_steps_are_shown():
    traces = tuple(run_graph(GRAPH, {"m": Obedient()}, TASKS[:1]))
    losses = (VerbalLoss(value=1.0, text="wrong", expected_output="right"),)
    diagnosis = Diagnosis(probabilities={"left": 1.0}, method="evidence", num_runs=1)
    evidence = Evidence(
        graph=GRAPH, traces=traces, losses=losses, attributions=(), credits=(), diagnosis=diagnosis, num_runs=1
    )
    writer = Writer("<prompt>copy all</prompt>")
    state = OptimizerState(seed=0, step=0, prompts=GOOD, loss=0.5, evaluations=1, runs=2)
    changes = Opro(writer, by="diagnosis").propose(state, evidence, random.Random(0))
    assert changes == [{"left": "copy all"}]
    for words in ("* wrong\n  way: unknown\n", "left said: ant", "end said: ant+ANT"):
        assert words in writer.asked[0].message


def test_a_proposal_without_evidence():
    evidence = Evidence(graph=GRAPH, traces=(), losses=(), attributions=(), credits=())
    state = OptimizerState(seed=0, step=0, prompts=GOOD, loss=0.5, evaluations=1, runs=2)
    assert Opro(Writer()).propose(state, evidence, random.Random(0)) == []


def test_bounds_that_cannot_be_used():
    with pytest.raises(ConfigError, match="agents_per_step 0"):
        Opro(Writer(), agents_per_step=0)
    with pytest.raises(ConfigError, match="history -1"):
        Opro(Writer(), max_history=-1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I would not know.", "no proposal for end: the answer has no prompt between <prompt> and </prompt>: 'I would"),
        ("<prompt> </prompt>", "no prompt between"),
        ("<prompt>mumble</prompt>", "the answer is the prompt that the agent has"),
        ("<prompt>join</prompt> or <prompt>shout</prompt>", "the answer has 2 prompts"),
        ("<think><prompt>join</prompt>", "no prompt between"),
    ],
)
def test_why_a_proposal_is_dropped_is_told(answer: str, reason: str, caplog: pytest.LogCaptureFixture):
    state = run({"end": "mumble"}, Opro(Writer(answer), by="through"), steps=1)
    assert state.trials == ()
    assert reason in caplog.text


def test_a_draft_among_thoughts_is_no_proposal():
    answer = "<think>Perhaps <prompt>shout</prompt></think><prompt>join</prompt>"
    state = run({"end": "mumble"}, Opro(Writer(answer), by="through"), steps=1)
    assert [trial.changes for trial in state.trials] == [{"end": "join"}]
