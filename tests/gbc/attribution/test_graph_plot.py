"""The plot of a graph: steps in layers, edges that pass by the boxes, names shown as they are."""

from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from framework.gbc.attribution.graph_plot import _bend, _curve, graph_image, graph_svg, layers, save_graph_plot
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.attribution.results import AgentCredit, Attribution, EdgeCredit, MessageCredit

NODES = ("user", "manager", "hotel", "train", "end")
EDGES = (
    ("user", "manager", "message"),
    ("user", "hotel", "message"),
    ("manager", "hotel", "message"),
    ("manager", "train", "message"),
    ("manager", "train", "control"),
    ("hotel", "end", "message"),
    ("train", "end", "message"),
    ("user", "end", "message"),
    ("hotel", "hotel", "prompt"),
    ("end", "loss", "output"),
)


@pytest.fixture
def found() -> Attribution:
    return Attribution(
        id="7",
        loss=1.0,
        loss_text="wrong",
        agents=tuple(AgentCredit(name=name, through=0.5, own=0.2, walk=0.2) for name in NODES),
        messages=tuple(
            MessageCredit(step=name, node=name, text="", credit=0.5, spans=(), token_credits=()) for name in NODES
        ),
        prompts=(),
        edges=tuple(
            EdgeCredit(
                source=source,
                target=target,
                kind=kind,
                estimator="gradient",
                weight=1.0,
                share=0.5,
                credit=0.1 * number,
            )
            for number, (source, target, kind) in enumerate(EDGES, start=1)
        ),
        trajectories=(),
        gap=0.0,
        options=AttributionOptions(),
    )


def test_the_layers_of_the_plot(found: Attribution):
    assert layers(found) == [["user"], ["manager"], ["hotel", "train"], ["end"], ["loss"]]


@pytest.mark.parametrize("name", ["blame.png", "folder/blame.svg"])
def test_the_plot(found: Attribution, tmp_path: Path, name: str):
    save_graph_plot(tmp_path / name, found)
    if name.endswith("png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > image.height > 100
    else:
        assert "<svg" in (tmp_path / name).read_text()


def test_the_plot_as_an_image(found: Attribution):
    assert graph_image(found).width > 500
    assert max(graph_image(found, most_pixels=300).size) in (299, 300)


def test_edges_pass_by_the_boxes_between():
    edge = EdgeCredit(source="a", target="c", kind="message", estimator="gradient", weight=1.0, share=1.0, credit=1.0)
    places = {"a": (0.0, 0.0), "b": (2.0, 0.1), "c": (4.0, 0.0)}
    assert _bend(edge, {**places, "b": (2.0, 1.0)}) == 0
    bend = _bend(edge, places)
    # Below b, which lies a little above the straight line.
    assert bend < 0
    assert max(y for x, y in _curve(places["a"], places["c"], bend) if abs(x - 2.0) < 0.45) < 0.1 - 0.31
    # The middle of the parabola is half as far out as its control point.
    assert _curve((0.0, 0.0), (4.0, 0.0), 0.5)[12] == pytest.approx((2.0, 1.0))


def test_names_are_shown_as_they_are(found: Attribution):
    """What looks like mathematics or a tag is text."""
    name = '$\\frac{$ <b>&"{{ 7 * 7 }}'
    renamed = replace(
        found,
        agents=tuple(replace(each, name=name if each.name == "end" else each.name) for each in found.agents),
        messages=tuple(replace(each, step=name, node=name) if each.step == "end" else each for each in found.messages),
        edges=tuple(
            replace(
                each,
                source=name if each.source == "end" else each.source,
                target=name if each.target == "end" else each.target,
            )
            for each in found.edges
        ),
    )
    svg = graph_svg(renamed)
    assert "<b>" not in svg
    assert svg.startswith("<svg")
    assert name in unescape(svg)
