"""Edges without gradients: each estimator by hand, and that the report names it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.estimators import leave_one_out, score_function, text_distance
from framework.gbc.attribution.options import GradientOptions
from framework.gbc.attribution.token_gradients import output_log_probs
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.graph.spec import Agent, Condition, Estimator, Graph, Tool
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.language_models.prompt_encoding import render_blocks
from framework.gbc.language_models.straight_through import make_soft_prompts
from framework.testing.language_models import tiny_local_model


class Counting:
    """A model without gradients that answers with the number of blocks that it sees."""

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        text, blocks = render_blocks(lambda prompt, message: f"{prompt}|{message}", request)
        seen = "".join(sorted(piece.text for piece in request.pieces if piece.source is not None))
        return Reply(
            input_text=text,
            input_ids=(),
            input_spans=(),
            blocks=blocks,
            output=seen or "none",
            output_ids=(),
            output_spans=(),
            finish="stop",
        )


def lookup(texts: Mapping[str, str]) -> str:
    return "abcd" if "b" in texts else "abxx"


def needs_all(texts: Mapping[str, str]) -> str:
    return texts["a"] + texts["b"]


def agent(name: str, *reads: str, model: str = "m", **options: Any) -> Agent:
    return Agent(name=name, prompt=f"You are {name}.", model=model, reads=reads, max_new_tokens=4, **options)


def graph(function: Any, estimator: Estimator) -> Graph:
    tool = Tool(name="tool", reads=("a", "b", "user"), function=function, estimator=estimator)
    return Graph(agents=(agent("a", "user"), agent("b", "a"), agent("end", "tool")), tools=(tool,))


@pytest.fixture(scope="module")
def model():
    return tiny_local_model()


def traces_of(system: Graph, models: Mapping[str, Any], *texts: str):
    tasks = [{"user": text} for text in texts]
    return list(run_graph(system, models, tasks, options=RunOptions(on_empty="keep")))


def test_text_distance():
    assert text_distance("same", "same") == 0.0
    assert text_distance("ab", "cd") == 1.0
    assert text_distance("abcd", "abxx") == 0.5


def test_leaving_blocks_of_a_tool_out(model):
    for function, expected in ((lookup, (0.0, 0.5, 0.0)), (needs_all, (1.0, 1.0, 0.0))):
        system = graph(function, "leave_one_out")
        traces = traces_of(system, {"m": model}, "hi")
        (weights,) = leave_one_out(traces, system, {"m": model}, 0).values()
        assert tuple(weights[name] for name in ("a", "b", "user")) == expected


def test_leaving_blocks_of_a_local_agent_out(model):
    system = Graph(agents=(agent("a", "user"), agent("b", "user", "a", estimator="leave_one_out")))
    traces = traces_of(system, {"m": model}, "a cheap hotel")
    step = traces[0].step("b")
    (weights,) = leave_one_out(traces, system, {"m": model}, 0).values()
    for block in step.messages:
        start, stop = block.tokens
        shorter = step.input_ids[:start] + step.input_ids[stop:]
        rows = [TokenRow(input_ids=ids, prefix=0, output_ids=step.output_ids) for ids in (step.input_ids, shorter)]
        whole, without = (values.sum().item() for values in output_log_probs(model.model, rows))
        assert weights[block.source] == pytest.approx(abs(whole - without), rel=1e-4)
        assert weights[block.source] > 0


def test_leaving_blocks_of_a_steered_agent_out():
    model = tiny_local_model()
    model.soft = make_soft_prompts(model, ["b"], num_tokens=2)
    model.gates = {"a to b": torch.tensor(0.0)}
    system = Graph(agents=(agent("a", "user"), agent("b", "user", "a", estimator="leave_one_out")))
    traces = traces_of(system, {"m": model}, "a cheap hotel")
    step = traces[0].step("b")
    (weights,) = leave_one_out(traces, system, {"m": model}, 0).values()
    embed = model.model.get_input_embeddings()
    read = embed(torch.tensor(step.input_ids))
    (start, stop), place = step.messages[1].tokens, step.blocks[0].tokens[1]
    assert step.messages[1].source == "a"
    read[start:stop] = embed(torch.arange(embed.num_embeddings)).mean(dim=0)
    read = torch.cat([read[:place], model.soft["b"], read[place:]])
    sums = []
    for shorter in (read, torch.cat([read[: start + 2], read[stop + 2 :]])):
        inputs = torch.cat([shorter, embed(torch.tensor(step.output_ids))])[None]
        logits = model.model(inputs_embeds=inputs).logits[0, len(shorter) - 1 : -1]
        picks = torch.tensor(step.output_ids)[:, None]
        sums.append(logits.log_softmax(dim=-1).gather(1, picks).sum().item())
    assert weights["a"] == pytest.approx(abs(sums[0] - sums[1]), rel=1e-4)


def test_leaving_blocks_of_an_agent_on_a_server_out(model):
    end = agent("end", "user", "a", model="far", estimator="leave_one_out")
    system = Graph(agents=(agent("a", "user"), end))
    models = {"m": model, "far": Counting()}
    traces = traces_of(system, models, "hello")
    (weights,) = leave_one_out(traces, system, models, 0).values()
    output, said = traces[0].output, traces[0].step("a").output
    assert weights == {"user": text_distance(output, said), "a": text_distance(output, "hello")}


def test_the_score_function_weighs_choosers_by_their_gradients_and_the_reward(model):
    system = graph(lookup, "score_function")
    traces = traces_of(system, {"m": model}, "hi there", "a cheap hotel")
    options = GradientOptions()
    first, second = score_function(traces, system, {"m": model}, [1.0, 0.0], options).values()
    double, _ = score_function(traces, system, {"m": model}, [2.0, 0.0], options).values()
    assert first["a"] > 0 < first["b"]
    # The user has no gradient; the rewards are half a unit around their mean, then a whole one.
    assert first["user"] == second["user"] == 0.0
    assert double["a"] == pytest.approx(2 * first["a"])
    (alone,) = score_function(traces[:1], system, {"m": model}, [1.0], options).values()
    assert alone["a"] == pytest.approx(2 * first["a"], rel=1e-4)
    (right,) = score_function(traces[:1], system, {"m": model}, [0.0], options).values()
    assert right == {"a": 1.0, "b": 1.0, "user": 1.0}


@pytest.mark.parametrize("estimator", ["pass_through", "leave_one_out", "score_function"])
def test_the_report_names_the_estimator(model, estimator: Estimator):
    system = graph(lookup, estimator)
    traces = traces_of(system, {"m": model}, "hi")
    (found,) = attribute(traces, system, {"m": model}, [VerbalLoss(value=1.0, text="")])
    edges = {edge.source: edge for edge in found.edges if edge.target == "tool"}
    assert {edge.estimator for edge in edges.values()} == {estimator}
    if estimator == "pass_through":
        assert [edge.share for edge in edges.values()] == pytest.approx([1 / 3] * 3)
    if estimator == "leave_one_out":
        assert edges["b"].share == 1.0
    assert math.isclose(found.gap, 0.0, abs_tol=1e-9)


def test_a_decision_has_an_even_share(model):
    end = agent("end", "user", "a", when=Condition(source="a", pattern=""))
    system = Graph(agents=(agent("a", "user"), end))
    traces = traces_of(system, {"m": model}, "hi")
    (found,) = attribute(traces, system, {"m": model}, [VerbalLoss(value=1.0, text="")])
    edges = {(edge.source, edge.kind): edge for edge in found.edges if edge.target == "end"}
    # Beside the user's turn, the message and the prompt.
    assert edges["a", "control"].share == pytest.approx(1 / 4)
    assert edges["a", "control"].estimator == "pass_through"
    read = (edges["a", "message"], edges["user", "message"], edges["end", "prompt"])
    assert sum(edge.share for edge in read) == pytest.approx(3 / 4)
    assert edges["a", "message"].estimator == "gradient"


def test_given_outputs_depend_on_nothing_in_particular(model):
    system = Graph(agents=(agent("a", "user"), agent("b", "user", "a")))
    (trace,) = run_graph(system, {"m": model}, [{"user": "hi"}], given=[{"b": "that"}])
    assert replace(trace).step("b").finish == "given"
    (found,) = attribute([trace], system, {"m": model}, [VerbalLoss(value=1.0, text="")])
    assert [edge.share for edge in found.edges if edge.target == "b"] == [0.5, 0.5]
