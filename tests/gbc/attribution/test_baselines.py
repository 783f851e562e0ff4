"""What gradients are compared with: attention by hand, counterfactual runs and the calls they cost."""

from typing import Any

import pytest
import torch

from framework.core.errors import ConfigError
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.baselines import attention_scores, leave_agents_out
from framework.gbc.attribution.options import GradientOptions
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.graph.spec import Agent, Graph, Tool
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.testing.language_models import tiny_language_model, tiny_local_model


def test_attention_of_the_outputs():
    model = tiny_language_model("llama", vocabulary=97)
    row = TokenRow(input_ids=(5, 6, 7, 8), prefix=1, output_ids=(9, 10))
    fine, coarse = (
        attention_scores(model, [row], GradientOptions(scalar=scalar))[0] for scalar in ("finegrained", "sum_squares")
    )
    assert model.config._attn_implementation == "sdpa"
    assert fine.l1.shape == (2, 3)
    assert torch.allclose(fine.l1.mean(dim=0), coarse.l1[0])
    # The first output token comes from the last input token, whose attention to the inputs adds up to 1.
    whole = attention_scores(model, [TokenRow(input_ids=row.input_ids, prefix=0, output_ids=(9,))], GradientOptions())
    assert whole[0].l1.sum().item() == pytest.approx(1.0, rel=1e-5)
    assert torch.allclose(whole[0].l1[:, 1:], fine.l1[:1])
    assert torch.allclose(whole[0].log_probs, fine.log_probs[:1])


def test_attention_is_that_of_plain_reading():
    model = tiny_local_model()
    model.soft = {"b": torch.zeros(1, 32)}
    row = TokenRow(input_ids=(5, 6), prefix=0, output_ids=(9,), bound=model.bind("b", (), 2))
    with pytest.raises(ConfigError, match="agent 'b' has a soft prompt, gates or an adapter"):
        attention_scores(model.model, [row], GradientOptions())


def agent(name: str, *reads: str, **options: Any) -> Agent:
    return Agent(name=name, prompt=f"You are {name}.", model="m", reads=reads, max_new_tokens=4, **options)


def test_silent_agents():
    def table(texts: Any) -> str:
        return "|".join(f"{name}:{bool(text.strip())}" for name, text in sorted(texts.items()))

    graph = Graph(
        agents=(agent("a", "user"), agent("b", "user"), agent("c", "a")),
        tools=(Tool(name="end", reads=("b", "c"), function=table),),
    )
    models = {"m": tiny_local_model()}

    def loss(trace: Trace) -> VerbalLoss:
        return VerbalLoss(value=0.5 if trace.output == "b:True|c:True" else 0.75, text="")

    options = RunOptions(on_empty="keep")
    traces = list(run_graph(graph, models, [{"user": "a cheap hotel"}, {"user": "north"}], options=options))
    found = leave_agents_out(graph, models, traces, loss, options=options)
    for counterfactual in found:
        assert counterfactual.effects["b"] == counterfactual.effects["c"] == counterfactual.effects["end"] == -0.25
        # Only c depends on a model and on a.
        assert counterfactual.calls == 1
        assert counterfactual.ranking()[0] == "a" if counterfactual.effects["a"] == 0 else True


@pytest.mark.slow
def test_attention_in_place_of_gradients():
    graph = Graph(agents=(agent("a", "user"), agent("b", "user", "a")))
    models = {"m": tiny_local_model()}
    traces = list(run_graph(graph, models, [{"user": "a cheap hotel"}], options=RunOptions(on_empty="keep")))
    losses = [VerbalLoss(value=1.0, text="")]
    (plain,) = attribute(traces, graph, models, losses)
    (other,) = attribute(traces, graph, models, losses, scorer=attention_scores)
    assert other.gap == pytest.approx(0.0, abs=1e-9)
    assert plain.credit_of("a").through != other.credit_of("a").through
