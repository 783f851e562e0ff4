"""Accuracy of blame, by hand: credits that are set, not found."""

import pytest
import torch

from framework.core.errors import ConfigError
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.attribution.results import LOSS, AgentCredit, Attribution, EdgeCredit, MessageCredit, Trajectory
from framework.gbc.logs.accuracy import (
    AttributionAccuracy,
    Verdict,
    attribution_accuracy,
    certain,
    same_agent,
    step_values,
    verdict,
)
from framework.gbc.logs.schema import Log, Message, Mistake
from framework.gbc.logs.surrogate import ReadLog, read_log
from framework.testing.language_models import tiny_local_model

# Two messages of "a b" and one of "c"; credit ends at the prompts, and at the user.
THROUGH = {"user@0": 0.9, "a_b@1": 0.6, "c@2": 0.7, "a_b@3": 1.0}
OWN = {"a_b@1": 0.1, "c@2": 0.3, "a_b@3": 0.25}


def read_of(mistake: Mistake | None = None, id: str = "x") -> ReadLog:
    messages = (
        Message(agent="user", role="user", content="u"),
        Message(agent="a b", content="a"),
        Message(agent="c", content="c"),
        Message(agent="a b", content="a"),
    )
    return read_log(Log(id=id, messages=messages, mistake=mistake), tiny_local_model())


def credit(step: str, value: float) -> MessageCredit:
    return MessageCredit(step=step, node=step[:-2], text="", credit=value, spans=(), token_credits=())


def edge(source: str, target: str) -> EdgeCredit:
    return EdgeCredit(
        source=source, target=target, kind="message", estimator="gradient", weight=1.0, share=1.0, credit=0.0
    )


def found() -> Attribution:
    agents = (("user", 0.9, 0.35, 0.5), ("a_b", 1.6, 0.35, 1.0), ("c", 0.7, 0.3, 0.75))
    return Attribution(
        id="x",
        loss=1.0,
        loss_text="",
        agents=tuple(AgentCredit(name=n, through=t, own=o, walk=w) for n, t, o, w in agents),
        messages=tuple(credit(*item) for item in THROUGH.items()),
        prompts=tuple(credit(*item) for item in OWN.items()),
        edges=(edge("user@0", "a_b@1"), edge("a_b@1", "c@2"), edge("c@2", "a_b@3")),
        trajectories=(
            Trajectory(steps=(LOSS, "a_b@3", "c@2", "prompt of c@2"), weight=0.3),
            Trajectory(steps=(LOSS, "a_b@3", "user@0"), weight=0.1),
        ),
        gap=0.0,
        options=AttributionOptions(),
    )


def test_values_of_steps():
    read, attribution = read_of(), found()
    assert step_values(read, attribution, "through") == {1: 0.6, 2: 0.7, 3: 1.0}
    assert step_values(read, attribution, "own") == {1: 0.1, 2: 0.3, 3: 0.25}
    assert step_values(read, attribution, "walk") == pytest.approx({1: 0.0, 2: 0.75, 3: 1.0})


def test_agents_by_the_sum_of_their_steps_and_users_never():
    read, attribution = read_of(), found()
    # The user has as much own credit as "a b"; one message of "c" has more than any other.
    assert verdict(read, attribution, "own") == Verdict(agent="a b", step=2)
    assert verdict(read, attribution, "through") == Verdict(agent="a b", step=3)
    assert verdict(read, attribution, "walk") == Verdict(agent="a b", step=3)


def test_a_step_that_reads_nothing_keeps_what_it_is_given():
    first = read_log(
        Log(id="x", messages=(Message(agent="a", content="a"), Message(agent="b", content="b"))), tiny_local_model()
    )
    attribution = found()
    ends = Attribution(
        **{
            **vars(attribution),
            "messages": (credit("a@0", 0.8), credit("b@1", 1.0)),
            "prompts": (),
            "edges": (edge("a@0", "b@1"),),
        }
    )
    assert step_values(first, ends, "own") == {0: 0.8, 1: 0.0}


def test_exact_and_tolerant():
    metric = AttributionAccuracy(tolerances=(2,))
    said = [Verdict(agent="Web_Surfer", step=4), Verdict(agent="coder", step=4), Verdict(agent="coder", step=1)]
    metric.update(
        [certain(each) for each in said],
        [Mistake(agent="web surfer", step=6), Mistake(agent="coder", step=7), Mistake(agent="coder")],
    )
    metric.update([certain(Verdict(agent="x", step=12))], [Mistake(agent="y", step=12)])
    values = {name: value.item() for name, value in metric.compute().items()}
    # A third of three steps; "1" is no part of "12".
    assert values == pytest.approx(
        {
            "agent_accuracy": 2 / 4,
            "agent_accuracy_tolerant": 3 / 4,
            "step_accuracy": 1 / 3,
            "step_accuracy_within_2": 2 / 3,
            "num_agent_labels": 4,
            "num_step_labels": 3,
        }
    )


def test_by_method_against_chance_over_the_labelled():
    reads = [read_of(Mistake(agent="c", step=2)), read_of(), read_of(Mistake(agent="nobody", step=3))]
    said = [Verdict(agent="c", step=1), Verdict(agent="a b", step=3), Verdict(agent="a b", step=3)]
    rows = attribution_accuracy(reads, {"own": said}, (1,))
    assert rows["own"] == pytest.approx(
        {
            "agent_accuracy": 0.5,
            "agent_accuracy_tolerant": 0.5,
            "step_accuracy": 0.5,
            "step_accuracy_within_1": 1.0,
            "num_agent_labels": 2,
            "num_step_labels": 2,
        }
    )
    # Of 2 agents and 3 steps: 1/2 and 0; 1/3 each; within 1 of step 2 all three, of step 3 two.
    assert rows["chance"]["agent_accuracy"] == pytest.approx(0.25)
    assert rows["chance"]["step_accuracy"] == pytest.approx(1 / 3)
    assert rows["chance"]["step_accuracy_within_1"] == pytest.approx((1 + 2 / 3) / 2)
    assert attribution_accuracy([read_of()], {"own": said[:1]}) == {}


def test_without_labels_there_is_no_share():
    metric = AttributionAccuracy()
    metric.update([certain(Verdict(agent="a", step=0))], [Mistake()])
    assert metric.compute() == {"num_agent_labels": torch.tensor(0.0), "num_step_labels": torch.tensor(0.0)}
    with pytest.raises(ConfigError, match=r"tolerances \[0\]"):
        AttributionAccuracy((0,))


def test_names_that_differ_in_spelling():
    assert same_agent("Verification_Expert", "verification expert")
    assert not same_agent("Verification_Expert", "Verification_Experts")
