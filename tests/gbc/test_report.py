"""What people look at: the table, the picture, the page."""

import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from rich.console import Console

from framework.gbc.attribution import attribute
from framework.gbc.connections import ConnectionOptions
from framework.gbc.credits import AttributionOptions
from framework.gbc.graph import Agent, Condition, Graph
from framework.gbc.losses import VerbalLoss
from framework.gbc.picture import layers, save_picture
from framework.gbc.report import credit_table, html_page, save_html
from framework.gbc.run import RunOptions, run_graph
from framework.testing.language_models import tiny_local_model

NASTY = "<script>alert('&amp;')</script> \"$x$\" \0"


def agent(name: str, *reads: str, **options) -> Agent:
    return Agent(name=name, prompt=f"<b>{name}</b>", model="m", reads=reads, max_new_tokens=4, **options)


@pytest.fixture(scope="module")
def found():
    graph = Graph(
        agents=(
            agent("manager", "user"),
            agent("hotel", "user", "manager"),
            agent("train", "manager", when=Condition(source="manager", pattern="")),
            agent("end", "hotel", "train", "user"),
        )
    )
    models = {"m": tiny_local_model()}
    traces = list(run_graph(graph, models, [{"id": "<7>", "user": NASTY}], options=RunOptions(on_empty="keep")))
    options = AttributionOptions(connections=ConnectionOptions(prompts=True))
    return attribute(traces, graph, models, [VerbalLoss(value=1.0, text="<wrong>")], options)[0]


def test_the_table(found):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(credit_table(found))
    text = console.export_text()
    assert "task <7>: loss 1, completeness gap" in text
    row = next(line for line in text.splitlines() if "train" in line)
    assert "its prompt 0." in row
    assert "pass_through (control)" in row
    assert "strongest trajectory: loss <- end" in text


def test_the_layers_of_the_picture(found):
    assert layers(found) == [["user"], ["manager"], ["hotel", "train"], ["end"], ["loss"]]


@pytest.mark.parametrize("name", ["blame.png", "folder/blame.svg"])
def test_the_picture(found, tmp_path, name):
    save_picture(tmp_path / name, found)
    if name.endswith("png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > image.height > 100
    else:
        assert "<svg" in (tmp_path / name).read_text()


class Reader(HTMLParser):
    """The text of the boxes and the titles of the tokens in them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.titles = 0
        self.inside = False

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        if ("class", "text") in attrs:
            self.inside = True
            self.texts.append("")
        self.titles += self.inside and tag == "span" and "title" in dict(attrs)

    def handle_endtag(self, tag) -> None:
        self.inside = self.inside and tag != "div"

    def handle_data(self, data) -> None:
        if self.inside:
            self.texts[-1] += data


def test_the_page_is_whole_escaped_and_needs_nothing_else(found, tmp_path):
    save_html(tmp_path / "deep" / "blame.html", [found, found], title="<Blame>")
    page = (tmp_path / "deep" / "blame.html").read_text()
    assert page == html_page([found, found], title="<Blame>")
    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    assert not re.search(r"(src|href)=\"(?!#)", page.replace("xlink:href", "href"))
    texts = [message.text.replace("\0", "\ufffd") for message in (*found.messages, *found.prompts)]
    assert reader.texts == texts * 2
    assert reader.titles > 2 * len(texts)
    assert "&lt;wrong&gt;" in page
    assert "<title>&lt;Blame&gt;" in page
