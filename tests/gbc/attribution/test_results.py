"""Records of attribution: means by hand, rankings, and files that were written when fields had other names."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from framework.core.serialization import to_json
from framework.gbc.attribution.graph_plot import layers
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.attribution.results import (
    LOSS,
    AgentCredit,
    Attribution,
    EdgeCredit,
    MessageCredit,
    Trajectory,
    attribution_from_json,
    mean_attribution,
    mean_credits,
)

FOUND = Attribution(
    id="7",
    loss=2.0,
    loss_text="wrong",
    agents=(
        AgentCredit(name="a", through=2.0, own=0.5, walk=1.0),
        AgentCredit(name="t", through=1.5, own=1.5, walk=0.25),
    ),
    messages=(MessageCredit(step="a", node="a", text="x", credit=2.0, spans=((0, 1),), token_credits=(2.0,)),),
    prompts=(),
    edges=(
        EdgeCredit(source="t", target="a", kind="message", estimator="tool_replay", weight=1.0, share=0.75, credit=1.5),
    ),
    trajectories=(Trajectory(steps=("loss", "a", "t"), weight=0.75),),
    gap=0.0,
    options=AttributionOptions(),
)


def test_a_ranking_and_a_node_that_did_not_run():
    assert FOUND.ranking("through") == ["a", "t"]
    assert FOUND.ranking("own") == ["t", "a"]
    assert FOUND.credit_of("gone") == AgentCredit(name="gone", through=0.0, own=0.0, walk=0.0)
    assert FOUND.heading == "task 7"


def test_means_by_hand():
    other = replace(FOUND, loss=1.0, agents=(AgentCredit(name="a", through=1.0, own=1.0, walk=1.0),))
    first, second = mean_credits([each.agents for each in (FOUND, other)], [FOUND.loss, other.loss])
    # Credits are means over both; walks weigh by the losses, 2 and 1 of 3.
    assert (first.through, first.own, first.walk) == pytest.approx((1.5, 0.75, 1.0))
    assert (second.through, second.own, second.walk) == pytest.approx((0.75, 0.75, 0.25 * 2 / 3))
    mean = mean_attribution([FOUND, other], ["t", "a"])
    assert (mean.count, mean.loss, mean.edges[0].credit) == pytest.approx((2, 1.5, 1.5))


def test_steps_that_no_graph_names_are_in_the_mean_in_the_order_of_their_connections():
    def talk(*names: str) -> Attribution:
        edges = [
            EdgeCredit(source=a, target=b, kind="message", estimator="gradient", weight=1.0, share=1.0, credit=1.0)
            for a, b in [*pairwise(names), (names[-1], LOSS)]
        ]
        prompt = replace(edges[0], source=names[-1], target=names[-1], kind="prompt")
        messages = [replace(FOUND.messages[0], step=name, node=name.split("@")[0]) for name in names]
        return replace(FOUND, messages=tuple(messages), edges=(*edges, prompt))

    found = [talk("user@1", "agent@2"), talk("user@1", "agent@1", "find@1", "agent@2"), talk("user@1", "agent@1")]
    mean = mean_attribution(found, ["user", "agent", "find"])
    assert [message.step for message in mean.messages] == ["user@1", "agent@1", "find@1", "agent@2"]
    assert layers(mean) == [["user@1"], ["agent@1"], ["find@1"], ["agent@2"], [LOSS]]


def test_json_comes_back_whole():
    assert attribution_from_json(json.loads(json.dumps(to_json(FOUND)))) == FOUND


def test_json_of_the_first_version():
    old = json.dumps(to_json(FOUND)).replace("tool_replay", "rerun").replace("max_targets", "max_wished")
    assert "rerun" in old
    assert "max_wished" in old
    assert attribution_from_json(json.loads(old)) == FOUND
