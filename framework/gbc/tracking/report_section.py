"""What a report shows of systems of agents: a curve for each agent, who was to blame, the prompts that were tried."""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from framework.gbc.tracking.credit_html import credit_style, episode_html, heading
from framework.gbc.tracking.episode_records import FOLDER, GRAPH, read_blame
from framework.gbc.tracking.prompt_diff import Part, difference, shortened
from framework.gbc.tracking.prompt_history import FILE, TriedPrompt, read_prompts
from framework.report.charts import Line, chart, line_style
from framework.report.formatting import short
from framework.report.section import Section
from framework.report.templates import macros, printable
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


def sections(folder: Path, series: Mapping[str, Series], restarts: Sequence[int]) -> list[Section]:
    """The sections of a run of agents, as far as it has something of them.

    Args:
        folder: of the run.
        series: every metric's values by step.
        restarts: steps at which a later start took over.
    """
    return [*agent_curves(series, restarts), *blame(folder), *prompts(folder)]


def is_by_agent(name: str) -> bool:
    """Whether a metric is of one agent of several: `credit_own_by_agent/hotel`."""
    return name.partition("/")[0].endswith(_EACH)


@dataclass(frozen=True, kw_only=True)
class Key:
    """An agent in a legend.

    Attributes:
        name: of the agent.
        style: classes of its line.
        value: the last one, as it is shown.
    """

    name: str
    style: str
    value: str


@dataclass(frozen=True, kw_only=True)
class CurveCard:
    """A chart of all agents with its heading.

    Attributes:
        title: of the metric.
        step: of its last values.
        keys: the legend.
        drawn: the chart.
    """

    title: str
    step: int
    keys: tuple[Key, ...]
    drawn: Markup


def agent_curves(series: Mapping[str, Series], restarts: Sequence[int]) -> Iterator[Section]:
    """A card for each kind of these metrics, with a curve for each agent, whose colour is the same in all of them."""
    kinds: dict[str, dict[str, Series]] = {}
    for name, values in series.items():
        kind, _, agent = name.partition("/")
        if is_by_agent(name):
            kinds.setdefault(kind.removesuffix(_EACH), {})[agent] = values
    if not kinds:
        return
    names = sorted({agent for agents in kinds.values() for agent in agents})
    colors = {agent: number for number, agent in enumerate(names)}
    order = [*(kind for kind in _TITLES if kind in kinds), *(kind for kind in kinds if kind not in _TITLES)]
    cards = [_curve_card(kind, kinds[kind], colors, restarts) for kind in order]
    yield Section(title="Agents", body=_macros().agents(cards), metrics=frozenset(filter(is_by_agent, series)))


def _curve_card(
    kind: str, agents: Mapping[str, Series], colors: Mapping[str, int], restarts: Sequence[int]
) -> CurveCard:
    """The card of a kind of metrics.

    Args:
        kind: its name.
        agents: values by agent and step.
        colors: number of each agent's colour, from 0.
        restarts: steps at which a later start took over.
    """
    lines = [
        Line(name=agent, points=sorted(values.items()), color=colors[agent]) for agent, values in sorted(agents.items())
    ]
    last = max(line.points[-1][0] for line in lines)
    # An agent that did not run in the last step has no value there.
    values = [short(line.points[-1][1]) if line.points[-1][0] == last else "–" for line in lines]
    return CurveCard(
        title=_TITLES.get(kind, kind.replace("_", " ")),
        step=last,
        keys=tuple(
            Key(name=line.name, style=line_style(colors[line.name]), value=value)
            for line, value in zip(lines, values, strict=True)
        ),
        drawn=chart(lines, restarts=restarts, label=f"{kind} by agent and optimizer step", log_ratio=math.inf),
    )


def blame(folder: Path) -> Iterator[Section]:
    """The plot of the newest errors that were attributed, and the worst episodes among them."""
    found = read_blame(folder)
    if found is None:
        return
    told, plot = heading(found), folder / FOLDER / GRAPH
    if plot.is_file():
        # As an image, in which no script runs and nothing is fetched.
        data = Markup(base64.b64encode(plot.read_bytes()).decode())
        yield Section(title="Blame", body=_macros().graph(told, data))
    if found.episodes:
        episodes = [(episode, episode_html(episode)) for episode in found.episodes]
        body = _macros().episodes("" if plot.is_file() else told, episodes)
        yield Section(title="Worst episodes", body=body, style=credit_style())


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """A tried prompt in the table.

    Attributes:
        tried: it.
        parts: its difference from the one that it should replace.
        is_long: the difference is folded up.
        num_removed, num_added: words.
    """

    tried: TriedPrompt
    parts: tuple[Part, ...]
    is_long: bool
    num_removed: int
    num_added: int


def prompts(folder: Path) -> Iterator[Section]:
    """Every prompt that was tried, with its difference from the one that it should replace."""
    tried = read_prompts(folder)
    if not tried:
        return
    shown = _chosen(tried)
    num_trials, num_kept = (len({each.trial for each in some}) for some in (tried, [t for t in tried if t.kept]))
    file = FILE if len(shown) < len(tried) else ""
    yield Section(title="Prompts", body=_macros().prompts(num_trials, num_kept, file, list(map(_prompt_row, shown))))


def _chosen(tried: Sequence[TriedPrompt]) -> list[TriedPrompt]:
    """At most so many: the newest that were kept, then the newest others; in their order."""
    places = sorted(range(len(tried)), key=lambda place: (tried[place].kept, place), reverse=True)
    return [tried[place] for place in sorted(places[:_MOST_PROMPTS])]


def _prompt_row(tried: TriedPrompt) -> PromptRow:
    # Before they are cut into parts: a half of a secret would not be known as one.
    clean = replace(tried, before=scrubbed_text(tried.before), after=scrubbed_text(tried.after))
    parts = tuple(replace(part, text=printable(part.text)) for part in shortened(difference(clean.before, clean.after)))
    removed, added = (sum(len(part.text.split()) for part in parts if part.kind == k) for k in ("removed", "added"))
    is_long = sum(len(part.text) for part in parts) > _LONG
    return PromptRow(tried=clean, parts=parts, is_long=is_long, num_removed=removed, num_added=added)


def _macros() -> Any:
    return macros("framework.gbc.tracking", "report_section.html.jinja")
