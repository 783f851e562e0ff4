"""What a report shows of systems of agents: a curve for each agent, who was to blame, the prompts that were tried."""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from framework.gbc.tracking.credit_html import episode_html, heading
from framework.gbc.tracking.episode_records import FOLDER, GRAPH, Episode, read_blame
from framework.gbc.tracking.prompt_diff import difference, shortened
from framework.gbc.tracking.prompt_history import FILE, TriedPrompt, read_prompts
from framework.report.charts import Line, chart, line_style, short
from framework.tracking.metric_files import Series
from framework.tracking.secrets import scrubbed_text

_EACH = "_by_agent"
_TITLES = {
    "credit_own": "credit that ends at each",
    "credit_through": "credit that passes through each",
    "credit_walk": "share of the walks through each",
    "budget_calls": "calls of models",
    "budget_tokens": "tokens read and written",
    "budget_seconds": "seconds of models at work",
    "budget_cost": "cost",
}
"""By the metrics' names; others are spelled as they are."""
_MOST_PROMPTS = 100
_LONG = 1500
"""Characters of a difference from which on it is folded up."""
_TAGS = {"same": "", "removed": "del", "added": "ins"}


def is_by_agent(name: str) -> bool:
    """Whether a metric is of one agent of several: `credit_own_by_agent/hotel`."""
    return name.partition("/")[0].endswith(_EACH)


def agent_curves(series: Mapping[str, Series], restarts: Sequence[int]) -> str:
    """A card for each kind of these metrics, with a curve for each agent, whose colour is the same in all of them."""
    kinds: dict[str, dict[str, Series]] = {}
    for name, values in series.items():
        kind, _, agent = name.partition("/")
        if is_by_agent(name):
            kinds.setdefault(kind.removesuffix(_EACH), {})[agent] = values
    if not kinds:
        return ""
    names = sorted({agent for agents in kinds.values() for agent in agents})
    colors = {agent: number for number, agent in enumerate(names)}
    order = [*(kind for kind in _TITLES if kind in kinds), *(kind for kind in kinds if kind not in _TITLES)]
    cards = "".join(_curve_card(kind, kinds[kind], colors, restarts) for kind in order)
    return f'<section><h2>Agents</h2><div class="cards large">{cards}</div></section>\n'


def _curve_card(kind: str, agents: Mapping[str, Series], colors: Mapping[str, int], restarts: Sequence[int]) -> str:
    lines = [
        Line(name=agent, points=sorted(values.items()), color=colors[agent]) for agent, values in sorted(agents.items())
    ]
    drawn = chart(lines, restarts=restarts, label=f"{kind} by agent and optimizer step", log_ratio=math.inf)
    last = max(line.points[-1][0] for line in lines)
    # An agent that did not run in the last step has no value there.
    values = [short(line.points[-1][1]) if line.points[-1][0] == last else "–" for line in lines]
    keys = (
        f'<span class="key"><i class="{line_style(colors[line.name])}"></i>{_text(line.name)} <b>{value}</b></span>'
        for line, value in zip(lines, values, strict=True)
    )
    return (
        f'<div class="card"><div class="title"><h3>{_text(_TITLES.get(kind, kind.replace("_", " ")))}</h3>'
        f'<span class="now">at step {last}</span></div><div class="legend">{"".join(keys)}</div>{drawn}</div>'
    )


def blame(folder: Path) -> str:
    """The picture of the newest errors that were attributed, and the worst episodes among them."""
    found = read_blame(folder)
    if found is None:
        return ""
    told = f'<p class="lead">{escape(heading(found))}</p>'
    parts = []
    picture = folder / FOLDER / GRAPH
    if picture.is_file():
        # As an image, in which no script runs and nothing is fetched.
        data = base64.b64encode(picture.read_bytes()).decode()
        image = f'<img class="graph" src="data:image/svg+xml;base64,{data}" alt="credit that flows through the graph">'
        parts.append(f'<section><h2>Blame</h2>{told}<div class="card wide">{image}</div></section>\n')
    if found.episodes:
        note = '<p class="lead">The redder a token, the more of the loss passes through it.</p>'
        cards = "".join(_episode_card(episode, number) for number, episode in enumerate(found.episodes))
        parts.append(f"<section><h2>Worst episodes</h2>{'' if parts else told}{note}{cards}</section>\n")
    return "".join(parts)


def _episode_card(episode: Episode, number: int) -> str:
    summary = f"task {_text(episode.id)}, loss {episode.loss:.4g}"
    is_open = " open" if number == 0 else ""
    return f'<details class="card wide"{is_open}><summary>{summary}</summary>{episode_html(episode)}</details>'


def prompts(folder: Path) -> str:
    """Every prompt that was tried, with its difference from the one that it should replace."""
    tried = read_prompts(folder)
    if not tried:
        return ""
    shown = _chosen(tried)
    head = (
        "<tr><th class='number'>step</th><th>agent</th><th class='number'>held-out loss</th><th>decision</th>"
        "<th>change</th></tr>"
    )
    kept = len({each.trial for each in tried if each.kept})
    told = f"{len({each.trial for each in tried}):,} trials, {kept:,} kept."
    if len(shown) < len(tried):
        told += f" Shown are those that were kept and the newest others; all of them are in {FILE}."
    rows = "".join(map(_prompt_row, shown))
    return (
        f'<section><h2>Prompts</h2><p class="lead">{told}</p>'
        f'<div class="card wide"><table class="prompts">{head}{rows}</table></div></section>\n'
    )


def _chosen(tried: Sequence[TriedPrompt]) -> list[TriedPrompt]:
    """At most so many: the newest that were kept, then the newest others; in their order."""
    places = sorted(range(len(tried)), key=lambda place: (tried[place].kept, place), reverse=True)
    return [tried[place] for place in sorted(places[:_MOST_PROMPTS])]


def _prompt_row(tried: TriedPrompt) -> str:
    parts = shortened(difference(_scrubbed(tried.before), _scrubbed(tried.after)))
    pieces = (
        f"<{tag}>{escape(part.text)}</{tag}>" if (tag := _TAGS[part.kind]) else escape(part.text) for part in parts
    )
    text = f"<pre>{''.join(pieces)}</pre>"
    if sum(len(part.text) for part in parts) > _LONG:
        removed, added = (sum(len(part.text.split()) for part in parts if part.kind == k) for k in ("removed", "added"))
        text = f"<details><summary>words removed: {removed:,}, added: {added:,}</summary>{text}</details>"
    word = "kept" if tried.kept else "refused"
    return (
        f'<tr class="{word}"><td class="number">{tried.step:,}</td><td>{_text(tried.agent)}</td>'
        f'<td class="number">{short(tried.loss_before)} → {short(tried.loss)}</td>'
        f'<td><span class="decision">{word}</span></td><td class="text">{text}</td></tr>'
    )


def _scrubbed(text: str) -> str:
    return scrubbed_text(text).replace("\0", "\ufffd")


def _text(value: str) -> str:
    return escape(_scrubbed(value))
