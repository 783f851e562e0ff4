"""`framework attribute-logs`: logs that other frameworks wrote, read by a local model in place of their own."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.table import Table

from framework.core.console import console, results, tracked
from framework.core.errors import ConfigError, DataError
from framework.core.io import atomic_write, check_output_folder
from framework.core.serialization import JsonDict, to_json
from framework.gbc.attribution.attribute import attribute
from framework.gbc.attribution.html_report import credit_table, save_html
from framework.gbc.attribution.options import AttributionOptions, ConnectionOptions, GradientOptions
from framework.gbc.attribution.results import LOSS, Attribution, EdgeCredit
from framework.gbc.commands.log_results import LogResults
from framework.gbc.language_models.local import LocalModel, LocalModelConfig
from framework.gbc.logs.accuracy import METHODS, Method, Verdict, attribution_accuracy, verdict
from framework.gbc.logs.baselines import untrained_surrogate
from framework.gbc.logs.forms.reading import AUTO, FORMS, read_form
from framework.gbc.logs.schema import Log
from framework.gbc.logs.surrogate import SURROGATE, ReadLog, SurrogateOptions, log_loss, read_log

MOST_EDGES = 3
"""Edges into a step that the page shows: those with most credit; every agent may read every message before it."""

DEFAULTS = AttributionOptions(
    connections=ConnectionOptions(prompts=True, gradients=GradientOptions(scalar="sequence_log_prob")), edits=None
)
"""One gradient a message, and prompts with credit of their own: what an agent does not take from what it read."""


@dataclass(frozen=True, kw_only=True)
class LogAttribution:
    """What the failure of one log is attributed to.

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
    form: str = AUTO,
    agents: tuple[str, ...] | None = None,
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    plain_format: str | None = None,
    skip_bad: bool = False,
    limit: int | None = None,
    resume: bool = False,
    show: int = 3,
    tolerances: tuple[int, ...] = (1, 3),
    surrogate: SurrogateOptions = SurrogateOptions(),
    options: AttributionOptions = DEFAULTS,
) -> None:
    """Say which agents and steps made foreign runs fail: tables, and in OUT a page and JSON.

    The models that wrote the logs are not asked: a local one, the surrogate, reads the logs in their place, and the
    blame is what the messages follow from for it. Every log's line is written as it is done: `--resume` goes on.

    Args:
        trace: file of JSON or JSON lines, or a folder of them.
        model: folder of the surrogate, a causal language model with safetensors.
        out: folder for blame.html, attributions.jsonl, summary.json and settings.json.
        form: of the logs, such as opentelemetry or langchain (docs/traces.md); by default that of the first record.
        agents: those who speak as users and are agents; by default by the form's rule, or else an error.
        device: where the surrogate runs.
        dtype: of its weights.
        plain_format: for surrogates without a chat template: a text with {prompt} and {message}.
        skip_bad: leave malformed logs out instead of ending with an error.
        limit: the first so many logs of failed runs alone; all by default.
        resume: keep what an earlier call with the same model and options has written to OUT.
        show: number of logs whose tables are printed.
        tolerances: of the accuracy of steps, in messages to either side.
        surrogate: how it reads a log.
        options: how errors are attributed.
    """
    if show < 0 or (limit is not None and limit < 1):
        raise ConfigError(f"show {show}, limit {limit}", hint="show 0 or more, of a limit of 1 or more")
    check_output_folder(out)
    failed = _failed_logs(trace, form, agents, skip_bad=skip_bad)
    if not failed:
        console.print("nothing to blame")
        return
    config = LocalModelConfig(path=model, device=device, dtype=dtype, plain_format=plain_format)
    reader = LocalModel.load(config)
    settings = _settings(config, surrogate, options)
    kept = LogResults(Path(out), settings, resume=resume)
    untrained = partial(LogResults, Path(out, "untrained"), settings, resume=resume)
    caption = f"read by the surrogate {Path(model).name}, not by the models that wrote them"
    work = _Work(model=reader, surrogate=surrogate, options=options, kept=kept, untrained=untrained, skip_bad=skip_bad)
    attributed = work.attribute_all(failed[:limit])
    if attributed:
        accuracy = _accuracy(attributed, work, tolerances)
        _save(Path(out), attributed, accuracy, caption)
        _show(attributed, accuracy, caption, show=show)
    console.print(f"{out}: blame.html, attributions.jsonl, summary.json" if attributed else "nothing is left to blame")


def _failed_logs(path: str, form: str, agents: tuple[str, ...] | None, *, skip_bad: bool) -> list[Log]:
    """The logs of failed runs; prints what they are read as, how many there are, and what is left out."""
    found = read_form(path, form, skip_bad=skip_bad, agents=agents)
    if form == AUTO:
        console.print(f"{path}: read as {FORMS[found.form].what} (--form {found.form})")
    for line in found.bad:
        console.print(f"{path}, {line.number} is not a log: {line.problem}", style="yellow")
    failed = [log for log in found.logs if log.failed]
    console.print(f"{path}: {len(found.logs)} logs, {len(found.bad)} malformed, {len(failed)} of failed runs")
    return failed


def _settings(config: LocalModelConfig, surrogate: SurrogateOptions, options: AttributionOptions) -> JsonDict:
    """What attributions depend on beside the logs."""
    of_model = {name: getattr(config, name) for name in ("path", "dtype", "plain_format")}
    return {**of_model, "surrogate": to_json(surrogate), "options": to_json(options)}


def _accuracy(
    attributed: Sequence[LogAttribution], work: "_Work", tolerances: tuple[int, ...]
) -> dict[str, dict[str, float]]:
    """The accuracies over the logs with labels, beside an untrained surrogate's and those of no surrogate."""
    labelled = [each for each in attributed if each.read.log.mistake is not None]
    if not labelled:
        return {}
    verdicts = {str(method): [each.verdicts[method] for each in labelled] for method in METHODS}
    untrained, kept = untrained_surrogate(work.model), work.untrained()
    verdicts["untrained"] = [
        attribute_log(each.read.log, untrained, work.surrogate, work.options, kept=kept).verdicts["own"]
        for each in tracked(labelled, "attributing by an untrained surrogate")
    ]
    return attribution_accuracy([each.read for each in labelled], verdicts, tolerances)


def attribute_log(
    log: Log,
    model: LocalModel,
    surrogate: SurrogateOptions = SurrogateOptions(),
    options: AttributionOptions = DEFAULTS,
    *,
    kept: LogResults | None = None,
) -> LogAttribution:
    """What the failure of a log is attributed to, by one batched pass over its messages.

    Args:
        log: of a run that failed.
        model: the surrogate.
        surrogate: how it reads.
        options: how errors are attributed.
        kept: results of an earlier call, which are taken from there, and to which new ones are added.

    Raises:
        DataError: a context that is too short.
    """
    read = read_log(log, model, surrogate)
    found = None if kept is None else kept.of(read)
    if found is None:
        (found,) = attribute([read.trace], read.graph, {SURROGATE: model}, [log_loss(read)], options)
        if kept is not None:
            kept.add(found)
    return LogAttribution(read=read, found=found, verdicts={by: verdict(read, found, by) for by in METHODS})


@dataclass(frozen=True, kw_only=True)
class _Work:
    """How logs are attributed.

    Attributes:
        model: the surrogate.
        surrogate: how it reads.
        options: how errors are attributed.
        kept: results of this call and earlier ones.
        untrained: makes those of the untrained surrogate.
        skip_bad: logs that the surrogate cannot read are printed; otherwise they are an error.
    """

    model: LocalModel
    surrogate: SurrogateOptions
    options: AttributionOptions
    kept: LogResults
    untrained: Callable[[], LogResults]
    skip_bad: bool

    def attribute_all(self, logs: Sequence[Log]) -> list[LogAttribution]:
        """Each log that the surrogate can read, attributed and kept in their order; a line tells of each when done."""
        attributed: list[LogAttribution] = []
        for number, log in enumerate(tracked(logs, "attributing"), 1):
            begin = time.monotonic()
            try:
                each = attribute_log(log, self.model, self.surrogate, self.options, kept=self.kept)
            except DataError as error:
                if not self.skip_bad:
                    raise
                console.print(f"log {log.id!r} is left out: {error}", style="yellow")
                continue
            blamed = each.verdicts["own"]
            console.print(
                f"{number} of {len(logs)}: log {log.id!r}, most blamed {blamed.agent} {blamed.step}, "
                f"{time.monotonic() - begin:.1f} s"
            )
            attributed.append(each)
        self.kept.write([each.found for each in attributed])
        return attributed


def _show(
    attributed: Sequence[LogAttribution], accuracy: Mapping[str, Mapping[str, float]], caption: str, *, show: int
) -> None:
    screen = results()
    for each in attributed[:show]:
        screen.print(credit_table(_by_agent(each.found)))
    screen.print(_verdict_table(attributed, caption))
    if accuracy:
        screen.print(_accuracy_table(accuracy, caption))
    short = sum(bool(each.read.unread) for each in attributed)
    console.print(f"{len(attributed)} logs, {caption}; in {short} of them its context was too short for some steps")


def _for_reading(each: LogAttribution) -> Attribution:
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
    kept: list[EdgeCredit] = []
    for node in into:
        edges = sorted((edge for key, edge in merged.items() if key[-1] == node), key=lambda edge: -edge.credit)
        kept += [replace(edge, share=edge.credit / (into[node] or 1.0)) for edge in edges[:MOST_EDGES]]
    return replace(found, edges=tuple(kept))


def _save(
    folder: Path, attributed: Sequence[LogAttribution], accuracy: Mapping[str, Mapping[str, float]], caption: str
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    title = f"Blame of {len(attributed)} logs, {caption}"
    save_html(folder / "blame.html", [_for_reading(each) for each in attributed], title=title)
    summary = {
        "reader": caption,
        "accuracy": accuracy,
        "logs": [
            {
                "id": each.read.log.id,
                "blamed": {by: to_json(said) for by, said in each.verdicts.items()},
                "label": to_json(each.read.log.mistake),
                "unread": to_json(each.read.unread),
            }
            for each in attributed
        ],
    }
    with atomic_write(folder / "summary.json") as stream:
        stream.write(json.dumps(summary, indent=2).encode() + b"\n")


def _verdict_table(attributed: Sequence[LogAttribution], caption: str) -> Table:
    table = Table(title="most blamed: agent and message", caption=caption, caption_justify="left")
    for heading in ("log", *METHODS, "label"):
        table.add_column(heading, overflow="fold")
    for each in attributed:
        said = (f"{each.verdicts[by].agent} {each.verdicts[by].step}" for by in METHODS)
        label = each.read.log.mistake
        known = "" if label is None else " ".join(str(part) for part in (label.agent, label.step) if part is not None)
        table.add_row(each.read.log.id, *said, known)
    return table


def _accuracy_table(accuracy: Mapping[str, Mapping[str, float]], caption: str) -> Table:
    table = Table(title="accuracy over the logs with labels", caption=caption, caption_justify="left")
    names = next(iter(accuracy.values()))
    table.add_column("ranked by")
    for name in names:
        table.add_column(name.replace("_accuracy", "").replace("_", " "), justify="right")
    for method, values in accuracy.items():
        numbers = (f"{values[name]:.0f}" if name.startswith("num_") else f"{values[name]:.3f}" for name in names)
        table.add_row(method, *numbers)
    return table
