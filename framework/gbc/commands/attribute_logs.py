"""`framework attribute --model`: logs that other frameworks wrote, read by a local model in place of their own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from framework.core.errors import ConfigError, DataError
from framework.core.io import atomic_write
from framework.core.serialization import to_json
from framework.gbc.attribution import attribute as blame
from framework.gbc.attribution.edge_weights import ConnectionOptions
from framework.gbc.attribution.html_report import credit_table, save_html
from framework.gbc.attribution.results import LOSS, Attribution, AttributionOptions, EdgeCredit
from framework.gbc.attribution.token_gradients import GradientOptions
from framework.gbc.graph.trace import BadLine
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.logs.accuracy import METHODS, Method, Verdict, blame_accuracy, verdict
from framework.gbc.logs.openai import read_openai
from framework.gbc.logs.schema import Log, read_logs
from framework.gbc.logs.surrogate import SURROGATE, ReadLog, SurrogateOptions, log_loss, read_log
from framework.gbc.logs.who_when import read_who_when

Form = Literal["log", "openai", "who_when"]

MOST_SECTIONS = 100
"""Logs that the page shows in full."""
MOST_EDGES = 3
"""Edges into a step that the page shows: those with most credit; every agent may read every message before it."""

DEFAULTS = AttributionOptions(
    connections=ConnectionOptions(prompts=True, gradients=GradientOptions(scalar="sequence_log_prob")), edits=None
)
"""One gradient a message, and prompts with credit of their own: what an agent does not take from what it read."""

console = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class LogBlame:
    """The blame for one log.

    Attributes:
        read: the log as the surrogate read it.
        found: the credits.
        verdicts: who is blamed, by method.
    """

    read: ReadLog
    found: Attribution
    verdicts: Mapping[Method, Verdict]


def attribute_logs(
    *,
    trace: str,
    model: str,
    out: str = "blame",
    form: Form = "log",
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    plain_format: str | None = None,
    skip_bad: bool = False,
    show: int = 3,
    tolerances: tuple[int, ...] = (1, 3),
    surrogate: SurrogateOptions = SurrogateOptions(),  # noqa: B008 - frozen
    options: AttributionOptions = DEFAULTS,
) -> None:
    """Say which agents and steps made foreign runs fail: tables, and in OUT a page and JSON.

    The models that wrote the logs are not asked: a local one reads the logs in their place, and the blame is what the
    messages follow from for it.

    Args:
        trace: JSON lines of the documented form or of OpenAI-style messages, or a folder of Who&When's cases.
        model: folder of the surrogate, a causal language model with safetensors.
        out: folder for blame.html, attributions.jsonl and summary.json.
        form: of the logs.
        device: where the surrogate runs.
        dtype: of its weights.
        plain_format: for surrogates without a chat template: the text with {prompt} and {message}.
        skip_bad: leave malformed logs out instead of ending.
        show: tables of so many logs.
        tolerances: of the step-level accuracy, in messages to either side.
        surrogate: its context.
        options: how blame is found.
    """
    if show < 0:
        raise ConfigError(f"show {show}", hint="use 0 or more")
    found_logs, bad = read_form(trace, form, skip_bad=skip_bad)
    for line in bad:
        console.print(f"{trace}, {line.number} is no log: {line.problem}", style="yellow", markup=False)
    failed = [log for log in found_logs if log.failed]
    kept = f"{len(found_logs)} logs, {len(bad)} malformed, {len(failed)} of failed runs"
    console.print(f"{trace}: {kept}", markup=False)
    if not failed:
        console.print("nothing to blame")
        return
    reader = LocalModel.load(LocalModelConfig(path=model, device=device, dtype=dtype, plain_format=plain_format))
    told = f"read by the surrogate {Path(model).name}, not by the models that wrote them"
    blames = _blame_all(failed, reader, surrogate, options, skip_bad=skip_bad)
    if not blames:
        console.print("nothing is left to blame")
        return
    accuracy = blame_accuracy(
        [each.read for each in blames],
        {method: [each.verdicts[method] for each in blames] for method in METHODS},
        tolerances,
    )
    _save(Path(out), blames, accuracy, told)
    _show(blames, accuracy, told, show=show)
    console.print(f"{out}: blame.html, attributions.jsonl, summary.json", markup=False)


def read_form(path: str, form: Form, *, skip_bad: bool = False) -> tuple[list[Log], list[BadLine]]:
    """The logs at a path, by their form.

    Raises:
        ConfigError: another form.
        DataError: what its reader finds.
    """
    if form == "who_when":
        return read_who_when(path, skip_bad_files=skip_bad)
    if form == "openai":
        return read_openai(path, skip_bad_lines=skip_bad)
    if form == "log":
        return read_logs(path, skip_bad_lines=skip_bad)
    raise ConfigError(f"form {form!r}", hint=f"use one of {', '.join(get_args(Form))}")


def blame_log(
    log: Log,
    model: LocalModel,
    surrogate: SurrogateOptions = SurrogateOptions(),  # noqa: B008 - frozen
    options: AttributionOptions = DEFAULTS,
) -> LogBlame:
    """The blame for a failed log, from one batched pass over its messages.

    Raises:
        DataError: a context that is too short.
    """
    read = read_log(log, model, surrogate)
    (found,) = blame.attribute([read.trace], read.graph, {SURROGATE: model}, [log_loss(read)], options)
    return LogBlame(read=read, found=found, verdicts={by: verdict(read, found, by) for by in METHODS})


def _blame_all(
    logs: Sequence[Log],
    model: LocalModel,
    surrogate: SurrogateOptions,
    options: AttributionOptions,
    *,
    skip_bad: bool,
) -> list[LogBlame]:
    """The blame for each log that the surrogate can read; the others are told of, or are an error."""
    blames: list[LogBlame] = []
    for log in track(logs, description="attributing", console=console, transient=True):
        try:
            blames.append(blame_log(log, model, surrogate, options))
        except DataError as error:
            if not skip_bad:
                raise
            console.print(f"log {log.id!r} is left out: {error}", style="yellow", markup=False)
    return blames


def _show(blames: Sequence[LogBlame], accuracy: Mapping[str, Mapping[str, float]], told: str, *, show: int) -> None:
    screen = Console(highlight=False)
    for each in blames[:show]:
        screen.print(credit_table(_by_agent(each.found)))
    screen.print(_verdict_table(blames, told))
    if accuracy:
        screen.print(_accuracy_table(accuracy, told))
    short = sum(bool(each.read.unread) for each in blames)
    console.print(f"{len(blames)} logs, {told}; in {short} of them its context was too short for some steps")


def _for_reading(each: LogBlame) -> Attribution:
    """The credits with the strongest edges alone, and words on the reader."""
    edges: dict[str, list[EdgeCredit]] = {}
    for edge in each.found.edges:
        edges.setdefault(edge.target, []).append(edge)
    kept = [
        edge
        for target, into in edges.items()
        for edge in (into if target == LOSS else sorted(into, key=lambda edge: -edge.credit)[:MOST_EDGES])
    ]
    unread = "; ".join(map(str, each.read.unread))
    words = f"{each.found.loss_text} A surrogate read this log; of the edges into a step the {MOST_EDGES} strongest are"
    words += f" shown.{f' Its context was too short: {unread}.' if unread else ''}"
    return replace(each.found, edges=tuple(kept), loss_text=words)


def _by_agent(found: Attribution) -> Attribution:
    """The credits with one edge between two nodes, the strongest alone: what a terminal has room for.

    An edge's share is of the node's credit over all its steps.
    """
    nodes = {message.step: message.node for message in found.messages}
    merged: dict[tuple[str, ...], EdgeCredit] = {}
    for edge in found.edges:
        if edge.target != LOSS:
            key = (edge.kind, edge.estimator, nodes[edge.source], nodes[edge.target])
            before = merged[key].credit if key in merged else 0.0
            merged[key] = replace(edge, source=nodes[edge.source], credit=before + edge.credit)
    into = {node: sum(edge.credit for key, edge in merged.items() if key[-1] == node) for node in nodes.values()}
    kept = []
    for node in into:
        edges = sorted((edge for key, edge in merged.items() if key[-1] == node), key=lambda edge: -edge.credit)
        kept += [replace(edge, share=edge.credit / (into[node] or 1.0)) for edge in edges[:MOST_EDGES]]
    return replace(found, edges=tuple(kept))


def _save(folder: Path, blames: Sequence[LogBlame], accuracy: Mapping[str, Mapping[str, float]], told: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shown = blames[:MOST_SECTIONS]
    first = f", the first {len(shown)}" if len(shown) < len(blames) else ""
    title = f"Blame of {len(blames)} logs{first}, {told}"
    save_html(folder / "blame.html", [_for_reading(each) for each in shown], title=title)
    with atomic_write(folder / "attributions.jsonl") as stream:
        for each in blames:
            stream.write(json.dumps(to_json(each.found)).encode() + b"\n")
    summary = {
        "reader": told,
        "accuracy": accuracy,
        "logs": [
            {
                "id": each.read.log.id,
                "blamed": {by: to_json(said) for by, said in each.verdicts.items()},
                "label": to_json(each.read.log.mistake),
                "unread": to_json(each.read.unread),
            }
            for each in blames
        ],
    }
    with atomic_write(folder / "summary.json") as stream:
        stream.write(json.dumps(summary, indent=2).encode() + b"\n")


def _verdict_table(blames: Sequence[LogBlame], told: str) -> Table:
    table = Table(title="most blamed: agent and message", caption=told, caption_justify="left")
    for heading in ("log", *METHODS, "label"):
        table.add_column(heading, overflow="fold")
    for each in blames:
        said = (f"{each.verdicts[by].agent} {each.verdicts[by].step}" for by in METHODS)
        label = each.read.log.mistake
        known = "" if label is None else " ".join(str(part) for part in (label.agent, label.step) if part is not None)
        table.add_row(*map(escape, (each.read.log.id, *said, known)))
    return table


def _accuracy_table(accuracy: Mapping[str, Mapping[str, float]], told: str) -> Table:
    table = Table(title="accuracy over the logs with labels", caption=told, caption_justify="left")
    names = next(iter(accuracy.values()))
    table.add_column("ranked by")
    for name in names:
        table.add_column(name.replace("_accuracy", "").replace("_", " "), justify="right")
    for method, values in accuracy.items():
        numbers = (f"{values[name]:.0f}" if name.startswith("num_") else f"{values[name]:.3f}" for name in names)
        table.add_row(method, *numbers)
    return table
