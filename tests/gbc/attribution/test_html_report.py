"""What users look at: the table, the plot of the graph, the page."""

import io
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from framework.gbc.attribution import html_report
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.graph_plot import layers
from framework.gbc.attribution.html_report import credit_table, html_page, save_html
from framework.gbc.attribution.options import AttributionOptions, ConnectionOptions
from framework.gbc.attribution.results import Attribution, Trajectory, mean_attribution
from framework.gbc.execution.runner import RunOptions, run_graph
from framework.gbc.graph.spec import Agent, Condition, Graph
from framework.gbc.graph.verbal_loss import VerbalLoss
from framework.testing.language_models import tiny_local_model

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = """<script>
const shades = [...document.querySelectorAll(".text span")].map(span => getComputedStyle(span).backgroundColor);
document.body.dataset.reddest = shades.sort().at(-1);
document.body.dataset.boxes = document.querySelectorAll(".text").length;
document.body.dataset.graph = Math.round(document.querySelector("svg").getBoundingClientRect().width);
document.body.dataset.overflow = document.documentElement.scrollWidth > document.documentElement.clientWidth;
</script>"""
NASTY = "<script>alert('&amp;')</script> \"$x$\" \0 {{ 7 * 7 }}{% raw %}"


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


@pytest.mark.slow
def test_the_mean_over_traces(found):
    half = replace(
        found,
        id="8",
        loss=0.5,
        agents=tuple(replace(each, through=each.through / 2, own=each.own / 2) for each in found.agents),
        messages=tuple(replace(each, credit=each.credit / 2) for each in found.messages),
        edges=tuple(replace(each, credit=each.credit / 2) for each in found.edges if each.source != "train"),
        trajectories=(Trajectory(steps=("loss", "end"), weight=1.0),),
    )
    order = ["user", "manager", "hotel", "train", "end"]
    mean = mean_attribution([found, half], order)
    assert mean.heading == "mean of 2 tasks"
    assert mean.loss == 0.75
    assert [message.step for message in mean.messages] == order
    for message, one in zip(mean.messages, found.messages, strict=True):
        assert message.credit == pytest.approx(0.75 * one.credit)
    assert sum(agent.own for agent in mean.agents) == pytest.approx(0.75)
    edges = {(edge.source, edge.target, edge.kind): edge for edge in mean.edges}
    for edge in found.edges:
        same = edges[edge.source, edge.target, edge.kind]
        assert same.share == pytest.approx(edge.share)
        assert same.credit == pytest.approx(edge.credit * (0.5 if edge.source == "train" else 0.75))
    # Walks weigh by the losses: 1 and 0.5 of 1.5.
    weights = {walk.steps: walk.weight for walk in mean.trajectories}
    assert weights["loss", "end"] == pytest.approx(1 / 3)
    assert weights[found.trajectories[0].steps] == pytest.approx(found.trajectories[0].weight * 2 / 3)
    again = mean_attribution([mean_attribution([found], order), mean_attribution([half, half], order)], order)
    whole = mean_attribution([found, half, half], order)
    assert (again.count, again.loss, again.gap) == pytest.approx((3, whole.loss, whole.gap))
    assert [edge.credit for edge in again.edges] == pytest.approx([edge.credit for edge in whole.edges])
    assert [message.credit for message in again.messages] == pytest.approx([each.credit for each in whole.messages])
    assert {walk.steps: walk.weight for walk in again.trajectories} == pytest.approx(
        {walk.steps: walk.weight for walk in whole.trajectories}
    )
    assert [(agent.own, agent.walk) for agent in again.agents] == [
        pytest.approx((agent.own, agent.walk)) for agent in whole.agents
    ]
    page = html_page([mean])
    assert "Mean of 2 tasks" in page
    assert "Outputs" not in page
    assert layers(mean) == layers(found)
    assert mean_attribution([found], order).heading == "task <7>"


def test_the_table(found):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(credit_table(found))
    text = console.export_text()
    assert "task <7>: loss 1, completeness gap" in text
    row = next(line for line in text.splitlines() if "train" in line)
    assert "its prompt 0." in row
    assert "pass_through (control)" in row
    assert "strongest trajectory: loss <- end" in text


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


def plain(found: Attribution, text: str) -> Attribution:
    """With one text for all outputs, a token a character, and no prompts; the later it is, the more credit it has."""
    spans = tuple((place, place + 1) for place in range(len(text)))
    messages = [
        replace(each, text=text, spans=spans, token_credits=(float(number),) * len(text), credit=float(number))
        for number, each in enumerate(found.messages)
    ]
    return replace(found, messages=tuple(messages), prompts=(), loss_text="wrong")


@pytest.mark.slow
def test_a_page_has_no_more_bytes_than_it_may(found, monkeypatch):
    # Three bytes a character.
    long = plain(found, "\u65e5" * 500)
    monkeypatch.setattr(html_report, "MOST_BYTES", 10**7)
    whole, empty = html_page([long, long]), html_page([plain(found, "")])
    assert whole.count('<div class="message">') == 2 * len(long.messages)
    assert "Shown are" not in whole
    one = (len(whole.encode()) - len(empty.encode())) // 2
    monkeypatch.setattr(html_report, "MOST_BYTES", len(empty.encode()) + one + 100)
    page = html_page([long, long, long])
    assert page.count("<section>") == 1
    assert "Shown are the first 1 of 3." in page
    assert page.count('<div class="message">') == len(long.messages)
    # Of one that is too long alone, what has most credit.
    monkeypatch.setattr(html_report, "MOST_BYTES", len(empty.encode()) + one // 2)
    short = html_page([long])
    count = len(long.messages) // 2
    assert f"wrong Of {len(long.messages)} texts the {count} with most credit are shown." in short
    assert [each.step for each in long.messages[-count:]] == re.findall(r'class="message"><b>([^<]*)', short)
    assert len(short.encode()) < len(empty.encode()) + one // 2 + 2000


@pytest.mark.slow
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
    assert re.search(r"pass_through \(control\)</td>", page)
    assert "<title>&lt;Blame&gt;" in page


def test_every_field_is_escaped(found):
    def evil(field: str) -> str:
        return f"{field} <script>alert(1)</script>\"'&{{{{ 7 * 7 }}}}{{% raw %}}$\\frac{{$"

    names = {message.step: evil(message.step) for message in found.messages}
    renamed = replace(
        found,
        id=evil("id"),
        loss_text=evil("loss text"),
        agents=tuple(replace(each, name=names[each.name]) for each in found.agents),
        messages=tuple(
            replace(
                each,
                step=names[each.step],
                node=names[each.node],
                text=evil("text"),
                spans=((0, 9), (9, 40)),
                token_credits=(0.5, 1.0),
            )
            for each in found.messages
        ),
        prompts=tuple(replace(each, step=names[each.step]) for each in found.prompts),
        edges=tuple(
            replace(each, source=names.get(each.source, each.source), target=names.get(each.target, each.target))
            for each in found.edges
        ),
        trajectories=(Trajectory(steps=("loss", evil("walk")), weight=1.0),),
    )
    page = html_page([renamed], title=evil("title"))
    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    shown = unescape(re.sub(r"<[^>]*>", "", page))
    for field in ("title", "id", "loss text", "walk", "text", *names):
        assert evil(field) in shown, field


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_it(found, tmp_path):
    save_html(tmp_path / "blame.html", [found])
    probed = tmp_path / "probed.html"
    probed.write_text((tmp_path / "blame.html").read_text().replace("</body>", PROBE + "</body>"))
    body = re.search(r"<body[^>]*>", browse(tmp_path, probed, "--dump-dom", "--window-size=400,900"))
    assert body is not None
    assert 'data-overflow="false"' in body[0], "a narrow window scrolls sideways"
    assert 'data-boxes="9"' in body[0]
    assert re.search(r'data-graph="[1-9]\d+"', body[0])
    assert 'data-reddest="rgba(211, 47, 47, 0.75)"' in body[0]
    screenshot = tmp_path / "page.png"
    browse(
        tmp_path, tmp_path / "blame.html", f"--screenshot={screenshot}", "--window-size=1000,1600", "--hide-scrollbars"
    )
    with Image.open(screenshot) as image:
        assert image.size == (1000, 1600)
        colors = {color[:3]: count for count, color in image.convert("RGB").getcolors(1 << 24)}
    assert colors[0xFF, 0xF6, 0xE5] > 5_000, "the loss"
    assert sum(count for (r, g, b), count in colors.items() if r > g + 60 and r > b + 60) > 1_000, "credit"


def browse(tmp_path: Path, page: Path, *options: str) -> str:
    """What the browser prints."""
    assert CHROMIUM is not None
    quiet = ["background-networking", "component-update", "sync", "gpu", "quic"]
    command = [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    command += [f"--user-data-dir={tmp_path / options[0][2:8]}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
