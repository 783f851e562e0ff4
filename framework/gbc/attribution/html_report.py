"""Attributions as a table for a terminal and as an HTML page with tokens coloured by credit."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape as escape_markup
from rich.table import Table

from framework.core.io import atomic_write
from framework.gbc.attribution.graph_plot import graph_svg
from framework.gbc.attribution.results import Attribution, MessageCredit
from framework.gbc.tracking.credit_html import credit_html, escape

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1d1f; background: #fff; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; }
h2 { margin-top: 3rem; border-top: 2px solid #ddd; padding-top: 1rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
.loss { background: #fff6e5; border-left: 4px solid #e69500; padding: .4rem .8rem; white-space: pre-wrap; }
.message { margin: .8rem 0; } .message b { display: inline-block; min-width: 10rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid #ddd; border-radius: 4px;
  padding: .4rem .6rem; font-family: ui-monospace, monospace; font-size: 13px; }
.text span { background: rgba(211, 47, 47, var(--c)); border-radius: 2px; }
.note { color: #666; } svg { max-width: 100%; height: auto; }
"""


def credit_table(attribution: Attribution) -> Table:
    """Credit of every node and edge, for a terminal."""
    caption = " <- ".join(attribution.trajectories[0].steps) if attribution.trajectories else "no trajectory"
    title = f"{attribution.heading}: loss {attribution.loss:.4g}, completeness gap {_gap(attribution)}"
    table = Table(
        title=escape_markup(title), caption=escape_markup(f"strongest trajectory: {caption}"), caption_justify="left"
    )
    for heading in ("node", "through", "own", "walk", "reads (share, estimator)"):
        table.add_column(heading, justify="left" if heading[0] in "nr" else "right")
    for agent in attribution.agents:
        numbers = (f"{value:.4f}" for value in (agent.through, agent.own, agent.walk))
        table.add_row(escape_markup(agent.name), *numbers, escape_markup(_reads(attribution, agent.name)))
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


def html_page(attributions: Sequence[Attribution], *, title: str = "Blame") -> str:
    """A page that needs nothing else: agents, graph, trajectories, and every output with its tokens coloured."""
    sections = "".join(map(_section, attributions))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        '<p class="note">The redder a token, the more of the loss passes through it. '
        "Point at a token for its credit. Of a node, <i>through</i> is the credit that passes through its outputs, "
        "<i>own</i> what ends at it, <i>walk</i> its share of the trajectories; it reads its inputs with the shares "
        "given, by the gradient where no other estimator is named.</p>"
        f"{sections}</body></html>\n"
    )


def save_html(path: str | Path, attributions: Sequence[Attribution], *, title: str = "Blame") -> None:
    """Writes `html_page`, atomically; makes the folder. Raises OSError."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(path)) as stream:
        # Outputs of a model may hold halves of characters.
        stream.write(html_page(attributions, title=title).encode("utf-8", errors="replace"))


def _section(attribution: Attribution) -> str:
    rows = "".join(
        f"<tr><td>{escape(agent.name)}</td><td>{agent.through:.4f}</td><td>{agent.own:.4f}</td>"
        f"<td>{agent.walk:.4f}</td><td>{escape(_reads(attribution, agent.name))}</td></tr>"
        for agent in attribution.agents
    )
    walks = "".join(
        f"<li>{' ← '.join(map(escape, walk.steps))} <span class='note'>({walk.weight:.3g})</span></li>"
        for walk in attribution.trajectories[:20]
    )
    largest = (
        max((abs(c) for m in (*attribution.messages, *attribution.prompts) for c in m.token_credits), default=0.0)
        or 1.0
    )
    prompts = "".join(_message(message, largest) for message in attribution.prompts)
    messages = "".join(_message(message, largest) for message in attribution.messages if message.spans)
    return (
        f"<section><h2>{escape(attribution.heading[0].upper() + attribution.heading[1:])}</h2>"
        f'<p class="loss">Loss {attribution.loss:.4g}. {escape(attribution.loss_text)}</p>'
        f"{graph_svg(attribution)}"
        "<table><tr><th>node</th><th>through</th><th>own</th><th>walk</th><th>reads</th></tr>"
        f'{rows}</table><p class="note">Completeness gap {_gap(attribution)}.</p>'
        f"<h3>Trajectories</h3><ul>{walks}</ul>{'<h3>Outputs</h3>' if messages else ''}{messages}"
        f"{'<h3>Prompts</h3>' if prompts else ''}{prompts}</section>"
    )


def _message(message: MessageCredit, largest: float) -> str:
    text = credit_html(message.text, message.spans, message.token_credits, largest=largest, faintest=0.0)
    return (
        f'<div class="message"><b>{escape(message.step)}</b><span class="note">credit {message.credit:.4f}</span>'
        f'<div class="text">{text}</div></div>'
    )
