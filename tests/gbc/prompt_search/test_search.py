"""Optimization: keeps only what helps, spends on the blamed, goes on as if never interrupted."""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from framework.core.errors import CheckpointError, ConfigError
from framework.gbc.graph.spec import Agent, Graph
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.language_models.prompt_encoding import render_blocks
from framework.gbc.prompt_search.candidates import Candidates
from framework.gbc.prompt_search.opro import Opro
from framework.gbc.prompt_search.search import Evidence, OptimizeOptions, optimize
from framework.gbc.prompt_search.state import OptimizerState, Trial, load_state, save_state

GOOD = {"left": "copy", "right": "shout", "end": "join"}


class Obedient:
    """Agents that do what their one-word prompts say; another prompt makes them lose the message."""

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        words = [piece.text for piece in request.pieces if piece.source is not None] or [""]
        acts = {"copy": words[0], "shout": words[0].upper(), "join": "+".join(words)}
        text, blocks = render_blocks(lambda prompt, message: f"{prompt}|{message}", request)
        return Reply(
            input_text=text,
            input_ids=(),
            input_spans=(),
            blocks=blocks,
            output=acts.get(request.prompt, "?"),
            output_ids=(),
            output_spans=(),
            finish="stop",
        )


def agent(name: str, *reads: str) -> Agent:
    return Agent(name=name, prompt=GOOD[name], model="m", reads=reads, estimator="leave_one_out")


GRAPH = Graph(agents=(agent("left", "user"), agent("right", "user"), agent("end", "left", "right")))
TASKS = [{"id": str(i), "user": word} for i, word in enumerate(["ant", "bee", "cat", "dog"])]


def loss(trace: Trace) -> VerbalLoss:
    word = trace.task["user"]
    wanted = f"{word}+{word.upper()}"
    same = sum(a == b for a, b in zip(trace.output.split("+"), wanted.split("+"), strict=False)) / 2
    return VerbalLoss(value=1 - same, text="" if same == 1 else f"Expected {wanted!r}, it was {trace.output!r}.")


CANDIDATES = {"left": ["copy", "shout", "mumble"], "right": ["copy", "shout"], "end": ["join", "copy", "mumble"]}


def run(prompts: dict[str, str], proposer: Any = None, **options: Any) -> OptimizerState:
    settings: dict[str, Any] = {"steps": 40, "batch_size": 2, "seed": 1, **options}
    state, save_to = settings.pop("state", None), settings.pop("save_to", None)
    return optimize(
        GRAPH.with_prompts(prompts),
        {"m": Obedient()},
        loss,
        proposer or Candidates(CANDIDATES),
        train=TASKS[:2],
        held_out=TASKS[2:],
        options=OptimizeOptions(**settings),
        state=state,
        save_to=save_to,
    )


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


def test_a_resumed_optimization_equals_the_uninterrupted_one(tmp_path):
    faults = {"left": "mumble", "right": "mumble"}
    whole = run(faults)
    path = tmp_path / "runs" / "state.json"
    run(faults, steps=2, save_to=path)
    stopped = load_state(path)
    assert stopped.step == 2
    assert len(stopped.trials) == 2
    assert run(faults, state=stopped, save_to=path) == whole == load_state(path)


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


def test_a_proposal_without_evidence():
    evidence = Evidence(graph=GRAPH, traces=(), losses=(), attributions=(), credits=())
    state = OptimizerState(seed=0, step=0, prompts=GOOD, loss=0.5, evaluations=1, runs=2)
    assert Opro(Writer()).propose(state, evidence, random.Random(0)) == []


def test_states_that_cannot_be_used(tmp_path):
    path = tmp_path / "state.json"
    with pytest.raises(CheckpointError, match="no state"):
        load_state(path)
    state = OptimizerState(
        seed=1,
        step=1,
        prompts={"a": "é"},
        loss=0.5,
        evaluations=2,
        runs=4,
        trials=(Trial(step=0, changes={"a": "b"}, loss=0.5, kept=False),),
    )
    save_state(path, state)
    assert load_state(path) == state
    with pytest.raises(ConfigError, match="another graph or seed"):
        run({}, state=state)
    path.write_text('{"format": 1, "seed": "x"}')
    with pytest.raises(CheckpointError, match="no state"):
        load_state(path)


def test_what_cannot_be_optimized():
    with pytest.raises(ConfigError, match="no candidates"):
        Candidates({"left": []})
    with pytest.raises(ConfigError, match="candidates for nobody"):
        run({"left": "mumble"}, Candidates({"nobody": ["x"]}))
    with pytest.raises(ConfigError, match="steps 0"):
        OptimizeOptions(steps=0)
    with pytest.raises(ConfigError, match="0 held out"):
        optimize(GRAPH, {"m": Obedient()}, loss, Candidates(CANDIDATES), train=TASKS, held_out=[])
