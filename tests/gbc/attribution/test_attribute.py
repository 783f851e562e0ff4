"""Blame: axioms, graphs whose credits are known by hand, walks, ties."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from framework.core.errors import ConfigError
from framework.gbc.attribution.attribute import attribute, attribute_trace, output_units
from framework.gbc.attribution.edge_weights import Connection
from framework.gbc.attribution.options import (
    AttributionOptions,
    ConnectionOptions,
    CounterfactualEditOptions,
    GradientOptions,
)
from framework.gbc.attribution.results import mean_credits
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Graph, Tool, UserTurn
from framework.gbc.graph.trace import Block, Step, Trace
from framework.gbc.graph.verbal_loss import Place, VerbalLoss
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.language_models.prefix_cache import prompt_states
from framework.testing.language_models import (
    CHATML,
    GEMMA,
    Hybrid,
    LinearLM,
    tiny_hybrid_model,
    tiny_local_model,
    tiny_tokenizer,
)

LOSS = VerbalLoss(value=2.0, text="wrong")
WITHOUT_PROMPTS = AttributionOptions(connections=ConnectionOptions(prompts=False))


def step(name: str, output: str, spans: Sequence[tuple[int, int]] = (), input_text: str = "", **options: Any) -> Step:
    """A step whose input tokens are its characters."""
    settings: dict[str, Any] = {"kind": "agent" if spans else "user", "blocks": (), "controls": (), **options}
    return Step(
        name=name,
        node=name.partition("@")[0],
        model="m",
        input_text=input_text,
        input_ids=tuple(range(len(input_text))),
        input_spans=tuple((place, place + 1) for place in range(len(input_text))),
        output=output,
        output_ids=tuple(range(len(spans))),
        output_spans=tuple(spans),
        finish="stop",
        **settings,
    )


def link(source: str, *shares: float, block: Block | None = None, tokens: Any = None, **options: Any) -> Connection:
    settings: dict[str, Any] = {"kind": "message", "estimator": "gradient", **options}
    share = torch.tensor(shares, dtype=torch.float64)
    spread = None if tokens is None else torch.tensor(tokens, dtype=torch.float64)
    return Connection(source=source, block=block, weight=share, share=share, tokens=spread, **settings)


def trace_of(*steps: Step, outputs: tuple[str, ...]) -> Trace:
    return Trace(id="t", task={}, steps=steps, skipped=(), outputs=outputs)


# By hand.


def diamond(**links: Sequence[Connection]) -> tuple[Trace, dict[str, tuple[Connection, ...]]]:
    steps = [step("user", "one two"), *(step(name, "ab", [(0, 1), (1, 2)]) for name in ("a", "b", "c"))]
    known: dict[str, Sequence[Connection]] = {
        "user": (),
        "a": (link("user", 1.0),),
        "b": (link("user", 0.25), link("a", 0.75)),
        "c": (link("a", 0.2), link("b", 0.8)),
        **links,
    }
    return trace_of(*steps, outputs=("c",)), {name: tuple(found) for name, found in known.items()}


def test_path_products_by_hand():
    found = attribute_trace(*diamond(), LOSS, AttributionOptions())
    through = {agent.name: agent.through for agent in found.agents}
    # a: 0.2 + 0.8 * 0.75; user: a + 0.8 * 0.25; times the loss of 2.
    assert through == pytest.approx({"user": 2.0, "a": 1.6, "b": 1.6, "c": 2.0})
    assert found.credit_of("user").own == pytest.approx(2.0)
    assert found.gap == pytest.approx(0.0)
    flows = {(edge.source, edge.target): edge.credit for edge in found.edges}
    assert flows["a", "b"] == pytest.approx(1.2)
    assert flows["c", "loss"] == pytest.approx(2.0)
    assert found.trajectories[0].steps == ("loss", "c", "b", "a", "user")
    assert found.trajectories[0].weight == pytest.approx(0.8 * 0.75)


def test_what_gets_lost_is_the_gap():
    trace, links = diamond(b=(link("user", 0.0), link("a", 0.0)))
    found = attribute_trace(trace, links, LOSS, AttributionOptions())
    assert found.gap == pytest.approx(1.6)
    assert found.credit_of("user").own == pytest.approx(0.4)


def test_a_prompt_is_an_input_of_its_own():
    block = Block(source="c", kind="prompt", text="pq", chars=(0, 2), tokens=(0, 2))
    prompt = link("c", 0.5, block=block, tokens=[[0.25, 0.75]], kind="prompt")
    trace, links = diamond(c=(prompt, link("a", 0.5)))
    steps = [*trace.steps[:3], step("c", "ab", [(0, 1), (1, 2)], "pq")]
    found = attribute_trace(trace_of(*steps, outputs=("c",)), links, LOSS, AttributionOptions(top_m=2))
    assert found.credit_of("c").own == pytest.approx(1.0)
    assert found.credit_of("user").own == pytest.approx(1.0)
    assert found.prompts[0].token_credits == pytest.approx((0.25, 0.75))
    assert ("loss", "c", "prompt of c") in [walk.steps for walk in found.trajectories]
    assert found.gap == pytest.approx(0.0)
    assert found.ranking("own")[0] in ("c", "user")


def test_the_code_of_a_tool_is_an_input_of_its_own():
    code = link("b", 0.5, kind="code", estimator="pass_through")
    trace, links = diamond(b=(link("a", 0.5), code))
    found = attribute_trace(trace, links, LOSS, AttributionOptions(top_m=2))
    assert found.credit_of("b").own == pytest.approx(0.8)
    assert found.credit_of("user").own == pytest.approx(1.2)
    assert found.prompts == ()
    assert ("loss", "c", "b", "code of b") in [walk.steps for walk in found.trajectories]
    assert found.gap == pytest.approx(0.0)


def test_tokens_pass_their_credit_to_the_tokens_they_came_from():
    # b reads "xyz"; the wrong half of its output depends on "z" alone, which is a's second token.
    a = step("a", " xyz", [(0, 3), (3, 4), (4, 4)])
    block = Block(source="a", kind="message", text="xyz", chars=(1, 4), tokens=(1, 4))
    b = step("b", "no", [(0, 1), (1, 2)], "[xyz]", blocks=(block,))
    link_a = link("a", 1.0, 1.0, block=block, tokens=[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    trace = trace_of(a, b, outputs=("b",))
    loss = VerbalLoss(value=1.0, text="", places=(Place(step="b", start=1, stop=2),))
    found = attribute_trace(trace, {"a": (), "b": (link_a,)}, loss, AttributionOptions())
    assert found.messages[1].token_credits == (0.0, 1.0)
    assert found.messages[0].token_credits == (0.0, 1.0, 0.0)
    other = VerbalLoss(value=1.0, text="", places=(Place(step="b", start=0, stop=1),))
    found = attribute_trace(trace, {"a": (), "b": (link_a,)}, other, AttributionOptions())
    assert found.messages[0].token_credits == pytest.approx((1.0, 0.0, 0.0))


def test_words_stand_for_unknown_tokens():
    assert output_units(step("user", " two words\n")) == ((0, 4), (4, 10))
    assert output_units(step("user", "")) == ((0, 0),)


@pytest.mark.slow
def test_walks_keep_the_strongest_and_break_ties_at_random_by_the_seed():
    trace, links = diamond(c=(link("a", 0.5), link("b", 0.5)))
    chosen = Counter()
    for seed in range(40):
        options = AttributionOptions(seed=seed)
        first, again = (attribute_trace(trace, links, LOSS, options).trajectories for _ in range(2))
        assert first == again
        chosen[first[0].steps[2]] += 1
    assert min(chosen["a"], chosen["b"]) >= 8
    every = attribute_trace(trace, links, LOSS, AttributionOptions(top_m=5)).trajectories
    assert sorted(walk.steps for walk in every) == [
        ("loss", "c", "a", "user"),
        ("loss", "c", "b", "a", "user"),
        ("loss", "c", "b", "user"),
    ]
    assert sum(walk.weight for walk in every) == pytest.approx(1.0)
    assert len(attribute_trace(trace, links, LOSS, AttributionOptions(top_m=5, max_trajectories=2)).trajectories) == 2


# With a model.


def agent(name: str, *reads: str, **options: Any) -> Agent:
    return Agent(name=name, prompt=f"You are {name}.", model="m", reads=reads, max_new_tokens=5, **options)


def table(texts: Any) -> str:
    return "area=north; " + ",".join(sorted(texts))


GRAPH = Graph(
    users=(UserTurn(name="user"), UserTurn(name="unread")),
    agents=(
        agent("manager", "user"),
        agent("idle", "user", "unread"),
        agent("left", "user", "manager"),
        agent("right", "manager"),
        agent("end", "left", "right", "tool"),
    ),
    tools=(Tool(name="tool", reads=("manager", "left"), function=table),),
    outputs=("end",),
)
TASKS = [{"user": text, "unread": "x"} for text in ("a cheap hotel", "London, please, at 10:15", "north")]


@pytest.fixture(scope="module")
def model():
    return tiny_local_model()


@pytest.fixture(scope="module")
def traces(model):
    return list(run_graph(GRAPH, {"m": model}, TASKS, options=RunOptions(on_empty="keep")))


VARIANTS = [
    ConnectionOptions(gradients=GradientOptions(scalar="finegrained"), prompts=True),
    ConnectionOptions(gradients=GradientOptions(scalar="sum_squares"), score="gradient_input"),
    ConnectionOptions(gradients=GradientOptions(scalar="product_probs"), reduction="max", prompts=True),
    ConnectionOptions(gradients=GradientOptions(scalar="sequence_log_prob"), prompts=True, code=True),
    ConnectionOptions(gradients=GradientOptions(scalar="sequence_log_prob"), score="gradient_input", reduction="max"),
]


@pytest.mark.slow
@pytest.mark.parametrize("connections", VARIANTS)
def test_credits_of_the_inputs_add_up_to_the_loss(model, traces, connections: ConnectionOptions):
    losses = [VerbalLoss(value=value, text="") for value in (1.0, 0.5, 0.0)]
    options = AttributionOptions(connections=connections)
    for found, loss in zip(attribute(traces, GRAPH, {"m": model}, losses, options), losses, strict=True):
        assert sum(agent.own for agent in found.agents) == pytest.approx(loss.value, abs=1e-9)
        assert found.gap == pytest.approx(0.0, abs=1e-9)
        assert found.credit_of("end").through == pytest.approx(loss.value)
        # Nobody reads it.
        assert found.credit_of("idle").through == found.credit_of("unread").through == 0.0
        assert found.credit_of("idle").walk == 0.0
        for message in found.messages:
            assert sum(message.token_credits) == pytest.approx(message.credit, abs=1e-9)
            assert len(message.spans) == len(message.token_credits)


@pytest.mark.slow
def test_permuting_the_tasks_permutes_the_results_and_batching_changes_nothing(model, traces):
    losses = [VerbalLoss(value=1.0 + index, text="") for index in range(3)]
    whole = attribute(traces, GRAPH, {"m": model}, losses)
    turned = attribute(traces[::-1], GRAPH, {"m": model}, losses[::-1])[::-1]
    single = [attribute([t], GRAPH, {"m": model}, [loss])[0] for t, loss in zip(traces, losses, strict=True)]
    small = AttributionOptions(connections=ConnectionOptions(gradients=GradientOptions(max_tokens=1)))
    chunked = attribute(traces, GRAPH, {"m": model}, losses, small)
    for found in zip(whole, turned, single, chunked, strict=True):
        assert len({one.id for one in found}) == 1
        for other in found[1:]:
            for left, right in zip(found[0].edges, other.edges, strict=True):
                assert (left.source, left.target) == (right.source, right.target)
                assert left.credit == pytest.approx(right.credit, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_a_linear_model_whose_credits_are_known_by_hand():
    # Embeddings of three tokens, and the rows of W that give their logits.
    linear: Any = LinearLM([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]], [[1.0, 1.0], [2.0, -1.0], [0.0, 3.0]])
    model = LocalModel(linear, tiny_tokenizer())
    graph = Graph(
        users=(UserTurn(name="left"), UserTurn(name="right"), UserTurn(name="unread")),
        agents=(Agent(name="end", prompt="", model="m", reads=("left", "right")),),
    )
    blocks = [
        Block(source=name, kind="message", text=text, chars=(place, place + 1), tokens=(place, place + 1))
        for place, (name, text) in enumerate([("left", "a"), ("right", "b")])
    ]
    end = step("end", "cb", [(0, 1), (1, 2)], input_text="ab", blocks=tuple(blocks), controls=())
    # It reads tokens 0 and 1, and says 2 and 1.
    end = replace(end, output_ids=(2, 1))
    trace = trace_of(step("left", "a"), step("right", "b"), step("unread", "z"), end, outputs=("end",))
    # Sums: [1, 2], then with the first answer [0, 3]; logits of the picks 6 and -3.
    # Gradient of 6² + 3²: 2 * 6 * [0, 3] + 2 * (-3) * [2, -1] = [-12, 42] for every input token.
    for score, shares in (("l1", (0.5, 0.5)), ("gradient_input", (12 / 96, 84 / 96))):
        connections = ConnectionOptions(gradients=GradientOptions(scalar="sum_squares"), score=score)
        (found,) = attribute([trace], graph, {"m": model}, [LOSS], AttributionOptions(connections=connections))
        assert [found.credit_of(name).own for name in ("left", "right")] == pytest.approx([2 * s for s in shares])
        assert found.credit_of("unread").through == found.credit_of("unread").own == 0.0
        assert found.credit_of("end").through == 2.0
        assert found.gap == pytest.approx(0.0, abs=1e-12)
        # One output row for two tokens: both of the same sources.
        (message,) = (message for message in found.messages if message.step == "end")
        assert message.token_credits == (1.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kind", "template", "role"),
    [
        ("llama", "metaspace", None, "system"),
        ("qwen3", "bytes", CHATML, "system"),
        ("gemma2", "metaspace", GEMMA, "user"),
        ("gemma3", "bytes", GEMMA, "user"),
    ],
)
def test_every_family_with_its_tokenizer_and_template(family: Any, kind: Any, template: Any, role: Any):
    tokenizer = tiny_tokenizer(kind=kind, template=template)
    plain = None if template else "[INST] {prompt}\n{message} [/INST]"
    model = tiny_local_model(family, tokenizer=tokenizer, system_role=role, plain_format=plain)
    tasks = [{"user": "a cheap hotel 世界 🙂 in the north", "unread": "x"}, {"user": "10:15 to London", "unread": "x"}]
    options = RunOptions(on_empty="keep")
    runs = list(run_graph(GRAPH, {"m": model}, tasks, options=options))
    assert [trace.failure for trace in runs] == [None, None]
    blame = AttributionOptions(connections=ConnectionOptions(prompts=True))
    for found in attribute(runs, GRAPH, {"m": model}, [LOSS, LOSS], blame):
        assert found.gap == pytest.approx(0.0, abs=1e-6)
        assert sum(agent.own for agent in found.agents) == pytest.approx(2.0)
        # The windows of Gemma 3's three layers here, of 8 tokens each, do not reach back to the prompt.
        assert (found.credit_of("end").own > 0) == (family != "gemma3")
        assert found.credit_of("idle").through == 0.0


def test_an_agent_that_says_nothing(model):
    silent = tiny_local_model("llama")
    # All logits are 0: the first token each time, which is special and has no text.
    silent.model.get_output_embeddings().weight.zero_()
    models = {"m": model, "silent": silent}
    quiet = Agent(name="quiet", prompt="Say nothing.", model="silent", reads=("user",), max_new_tokens=3)
    graph = Graph(agents=(quiet, agent("end", "quiet", "user")))
    (failed,) = run_graph(graph, models, TASKS[:1])
    assert failed.failure is not None
    assert "agent 'quiet' says nothing: change its prompt, or set on_empty to keep" in failed.failure
    (trace,) = run_graph(graph, models, TASKS[:1], options=RunOptions(on_empty="keep"))
    assert trace.step("quiet").output == ""
    assert len(trace.step("quiet").output_ids) == 3
    (found,) = attribute([trace], graph, models, [LOSS], WITHOUT_PROMPTS)
    # Nobody can read anything in an empty message: the other input has all the credit.
    assert found.credit_of("quiet").through == 0.0
    assert found.credit_of("user").own == pytest.approx(2.0)
    # As the last one it has all the credit, and no gradient to hand it on by: the gap says so.
    last = Graph(agents=(quiet,))
    (trace,) = run_graph(last, models, TASKS[:1], options=RunOptions(on_empty="keep"))
    (found,) = attribute([trace], last, models, [LOSS])
    assert found.credit_of("quiet").through == found.gap == 2.0


def test_means_over_traces(model, traces):
    found = attribute(
        traces, GRAPH, {"m": model}, [VerbalLoss(value=v, text="") for v in (1.0, 2.0, 3.0)], WITHOUT_PROMPTS
    )
    credits = {
        agent.name: agent for agent in mean_credits([each.agents for each in found], [each.loss for each in found])
    }
    assert credits["end"].through == pytest.approx(2.0)
    assert credits["user"].own == pytest.approx(2.0)
    assert credits["idle"].through == 0.0


def test_what_cannot_be_attributed(model, traces):
    with pytest.raises(ConfigError, match="3 traces and 1 losses"):
        attribute(traces, GRAPH, {"m": model}, [LOSS])
    failed = Trace(id="9", task={}, steps=(), skipped=(), outputs=(), failure="no server")
    with pytest.raises(ConfigError, match="task '9' failed"):
        attribute([failed], GRAPH, {"m": model}, [LOSS])
    with pytest.raises(ConfigError, match="declares gradient, its model 'm' gives none"):
        attribute(traces[:1], GRAPH, {}, [LOSS])
    with pytest.raises(ConfigError, match="the trace has a node"):
        attribute(traces[:1], Graph(agents=(agent("end", "user"),)), {"m": model}, [LOSS])


@pytest.mark.parametrize("options", [{"top_m": 0}, {"max_trajectories": 0}])
def test_options_that_cannot_be_used(options: dict[str, Any]):
    with pytest.raises(ConfigError):
        AttributionOptions(**options)


@pytest.mark.slow
@pytest.mark.parametrize("edits", [None, CounterfactualEditOptions()])
def test_a_run_of_many_traces_reads_each_prompt_once(traces, edits: CounterfactualEditOptions | None):
    model, forgetful = tiny_local_model(), tiny_local_model(prompt_cache_mib=0)
    options = replace(WITHOUT_PROMPTS, edits=edits)
    loss = VerbalLoss(value=1.0, text="Wrong.", places=(Place(step="end", start=0, stop=2, expected="no"),))
    for trace in [*traces, *traces]:
        kept, fresh = (attribute([trace], GRAPH, {"m": each}, [loss], options)[0] for each in (model, forgetful))
        assert kept == fresh
    # Of manager, idle, left, right and end; edits change prompts, so that there the template before them is read too.
    assert prompt_states(model.model).num_read == (5 if edits is None else 6)
    assert prompt_states(forgetful.model).num_read > 6
    assert prompt_states(forgetful.model).num_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("family", get_args(Hybrid))
def test_hybrid_models_are_attributed(family: Hybrid):
    tokenizer = tiny_tokenizer()
    model = LocalModel(tiny_hybrid_model(family, vocabulary=len(tokenizer)), tokenizer, LocalModelConfig(path=""))
    agents = (
        Agent(name="a", prompt="Say.", model="m", reads=("user",), max_new_tokens=4),
        Agent(name="b", prompt="Write.", model="m", reads=("user", "a"), max_new_tokens=4),
    )
    graph, task = Graph(agents=agents), {"user": "a cheap hotel", "expected": {"area": "north"}}
    (trace,) = run_graph(graph, {"m": model}, [task], options=RunOptions(on_empty="keep"))
    loss = VerbalLoss(value=1.0, text="Wrong.", places=(Place(step="b", start=0, stop=2, expected="no"),))
    for options in (AttributionOptions(), AttributionOptions(edits=None)):
        (found,) = attribute([trace], graph, {"m": model}, [loss], options)
        assert found.gap == pytest.approx(0.0, abs=1e-6)
