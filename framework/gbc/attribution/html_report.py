"""Attributions as a table for a terminal and as an HTML page with tokens coloured by credit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup
from rich.table import Table

from framework.core.console import tracked
from framework.core.io import atomic_write
from framework.gbc.attribution.graph_plot import graph_svg
from framework.gbc.attribution.results import AgentCredit, Attribution, MessageCredit
from framework.gbc.tracking.credit_html import credit_html
from framework.report.templates import environment

MOST_SECTIONS = 100
"""Of a page, at most."""
MOST_BYTES = 2_000_000
"""Of a page's sections together; browsers and mail programs are slow with more."""


def credit_table(attribution: Attribution) -> Table:
    """Credit of every node and edge, for a terminal."""
    caption = " <- ".join(attribution.trajectories[0].steps) if attribution.trajectories else "no trajectory"
    title = f"{attribution.heading}: loss {attribution.loss:.4g}, completeness gap {_gap(attribution)}"
    title += f", credit by {attribution.method}"
    table = Table(title=title, caption=f"strongest trajectory: {caption}", caption_justify="left")
    for heading in ("node", "through", "own", "walk", "reads (share, estimator)"):
        table.add_column(heading, justify="left" if heading[0] in "nr" else "right")
    for agent in attribution.agents:
        numbers = (f"{value:.4f}" for value in (agent.through, agent.own, agent.walk))
        table.add_row(agent.name, *numbers, _reads(attribution, agent.name))
    return table


def _reads(attribution: Attribution, node: str) -> str:
    """The connections into a node, with their shares and, where it is not the gradient, their estimators."""
    nodes = {message.step: message.node for message in attribution.messages}
    return ", ".join(
        f"{f'its {edge.kind}' if edge.kind in ('prompt', 'code') else edge.source} {edge.share:.2f}"
        + ("" if edge.estimator == "gradient" else f" {edge.estimator}")
        + (" (control)" if edge.kind == "control" else "")
        for edge in attribution.edges
        if nodes.get(edge.target) == node
    )


def _gap(attribution: Attribution) -> str:
    """The completeness gap; what is left of rounding is none."""
    return "0" if abs(attribution.gap) < 1e-9 else f"{attribution.gap:.2g}"


@dataclass(frozen=True, kw_only=True)
class AttributionSection:
    """What the page shows of an attribution.

    Attributes:
        attribution: it.
        graph: its plot, as an `<svg>` element.
        rows: the nodes, each with what it reads.
        gap: the completeness gap, as it is shown.
        outputs, prompts: texts, each with its tokens coloured.
    """

    attribution: Attribution
    graph: Markup
    rows: tuple[tuple[AgentCredit, str], ...]
    gap: str
    outputs: tuple[tuple[MessageCredit, Markup], ...]
    prompts: tuple[tuple[MessageCredit, Markup], ...]


def html_page(attributions: Sequence[Attribution], *, title: str = "Blame", conclusion: str = "") -> str:
    """A page that needs nothing else: agents, graph, trajectories, and every output with its tokens coloured.

    It has at most `MOST_SECTIONS` sections of `MOST_BYTES` together, and says how many are left out. Of a first one
    that is too long alone, the texts with least credit are left out.

    Args:
        attributions: a section each.
        title: of the page.
        conclusion: what is concluded from all of them, at the top.
    """
    templates = environment("framework.gbc.attribution", scrub=False)
    template = templates.get_template("html_section.html.jinja")

    def whole(attribution: Attribution) -> Markup:
        return Markup(template.render(section=_section(attribution)))

    sections: list[Markup] = []
    left = MOST_BYTES
    for each in tracked(attributions[:MOST_SECTIONS], "sections of the page"):
        section, num_texts = whole(each), len(_texts(each))
        while not sections and num_texts and _num_bytes(section) > left:
            num_texts //= 2
            section = whole(_with_texts(each, num_texts))
        if sections and _num_bytes(section) > left:
            break
        sections.append(section)
        left -= _num_bytes(section)
    left_out = len(attributions) - len(sections)
    return templates.get_template("html_report.html.jinja").render(
        title=title, conclusion=conclusion, sections=sections, left_out=left_out
    )


def html_fragment(attributions: Sequence[Attribution], *, count: int | None = None) -> str:
    """What a notebook shows of attributions: a table each, and the outputs with their tokens coloured.

    Args:
        attributions: those that are shown.
        count: how many there are; by default as many.
    """
    template = environment("framework.gbc.attribution", scrub=False).get_template("notebook.html.jinja")
    rest = max(0, (len(attributions) if count is None else count) - len(attributions))
    return template.render(sections=list(map(_section, attributions)), rest=rest)


def save_html(
    path: str | Path, attributions: Sequence[Attribution], *, title: str = "Blame", conclusion: str = ""
) -> None:
    """Writes `html_page`, atomically; makes the folder.

    Args:
        path: HTML file.
        attributions: a section each.
        title: of the page.
        conclusion: what is concluded from all of them, at the top.

    Raises:
        OSError: it cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path)) as stream:
        # Outputs of a model may hold halves of characters.
        stream.write(html_page(attributions, title=title, conclusion=conclusion).encode("utf-8", errors="replace"))


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", errors="replace"))


def _texts(attribution: Attribution) -> list[MessageCredit]:
    """The texts that a section shows, those with most credit first."""
    texts = [each for each in (*attribution.messages, *attribution.prompts) if each.spans]
    return sorted(texts, key=lambda each: -abs(each.credit))


def _with_texts(attribution: Attribution, count: int) -> Attribution:
    """The same with so many texts, those with most credit."""
    texts = _texts(attribution)
    shown = {id(each) for each in texts[:count]}
    return replace(
        attribution,
        messages=tuple(
            each if id(each) in shown else replace(each, spans=(), token_credits=()) for each in attribution.messages
        ),
        prompts=tuple(each for each in attribution.prompts if id(each) in shown),
        loss_text=f"{attribution.loss_text} Of {len(texts)} texts the {count} with most credit are shown.".strip(),
    )


def _section(attribution: Attribution) -> AttributionSection:
    credits = (c for m in (*attribution.messages, *attribution.prompts) for c in m.token_credits)
    largest = max(map(abs, credits), default=0.0) or 1.0

    def texts(messages: Iterable[MessageCredit]) -> tuple[tuple[MessageCredit, Markup], ...]:
        return tuple(
            (each, credit_html(each.text, each.spans, each.token_credits, largest=largest, faintest=0.0))
            for each in messages
        )

    return AttributionSection(
        attribution=attribution,
        graph=Markup(graph_svg(attribution)),
        rows=tuple((agent, _reads(attribution, agent.name)) for agent in attribution.agents),
        gap=_gap(attribution),
        outputs=texts(message for message in attribution.messages if message.spans),
        prompts=texts(attribution.prompts),
    )
