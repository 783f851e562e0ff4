"""`framework attribute`: who is to blame for the errors of recorded runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from framework.core.console import console, results, tracked, working
from framework.core.errors import ConfigError
from framework.core.io import atomic_write, check_output_folder
from framework.core.serialization import to_json
from framework.core.text_files import half_character_in
from framework.gbc.attribution.attribute import attribute as attribute_traces
from framework.gbc.attribution.culprits.diagnosis import Diagnosis, diagnose
from framework.gbc.attribution.graph_plot import save_graph_plot
from framework.gbc.attribution.html_report import credit_table, save_html
from framework.gbc.attribution.options import AttributionOptions
from framework.gbc.attribution.results import Attribution, mean_attribution
from framework.gbc.commands.failures import print_failures
from framework.gbc.execution.loading import enough_memory, load_loss, load_models, role_reader
from framework.gbc.graph.spec import load_graph
from framework.gbc.graph.trace import Trace, read_traces
from framework.gbc.graph.unroll import unroll
from framework.gbc.graph.verbal_loss import Loss, VerbalLoss
from framework.gbc.language_models.interface import LanguageModel
from framework.gbc.language_models.local import LocalModel

_LESS_MEMORY = "lower --options.connections.gradients.max_tokens or gradients_at_once, or set checkpointing there"


def attribute(
    *,
    trace: str,
    graph: str,
    models: str,
    loss: str,
    out: str = "blame",
    skip_bad: bool = False,
    show: int = 3,
    batch_size: int = 16,
    options: AttributionOptions = AttributionOptions(),
) -> None:
    """Say which agent made the errors of recorded runs: a sentence, tables, and in OUT a page, pictures and JSON lines.

    The sentence says who is at fault in all of them together, by which method, and how sure that is; the tables and the
    page have the credit of every agent, message and token. The agents do not run again, unless the graph declares
    leave_one_out for one on a server. Logs that other frameworks wrote are attributed by `framework attribute-logs`.

    Args:
        trace: JSON lines of `framework agents run`.
        graph: the YAML file of the graph that made them.
        models: YAML file of the models that made them.
        loss: exact_match, slot_loss or an import path such as package.module:function.
        out: folder for blame.html, blame.png, blame.svg, attributions.jsonl and diagnosis.json.
        skip_bad: leave malformed lines out instead of ending with an error.
        show: number of traces whose tables are printed, those with the largest losses; the mean is always printed.
        batch_size: traces in one pass, 1 or more; the estimator score_function compares their losses.
        options: how errors are attributed.
    """
    if batch_size < 1 or show < 0:
        raise ConfigError(
            f"batch_size {batch_size}, show {show}", hint="use a batch of 1 or more, and 0 or more tables"
        )
    plan = unroll(load_graph(graph))
    pairs = _wrong_runs(trace, load_loss(loss), skip_bad=skip_bad)
    if not pairs:
        console.print(f"{trace}: nothing to blame")
        return
    check_output_folder(out)
    known = load_models(models, plan.graph, *role_reader(models, plan.graph))
    check_tokens([trace for trace, _ in pairs], known)
    starts = range(0, len(pairs), batch_size)
    found: list[Attribution] = []
    for start in tracked(starts, "attributing"):
        some, losses = zip(*pairs[start : start + batch_size], strict=True)
        with enough_memory(_LESS_MEMORY):
            found += attribute_traces(some, plan.graph, known, losses, options)
    with enough_memory(_LESS_MEMORY):
        wrong, losses = zip(*pairs, strict=True)
        with working("looking for evidence"):
            diagnosis = diagnose(wrong, plan.graph, known, losses, found)
    mean = mean_attribution(found, [step.name for step in plan.steps])
    _save(Path(out), found, mean, diagnosis)
    screen = results()
    for each in sorted(found, key=lambda each: -each.loss)[:show]:
        screen.print(credit_table(each))
    screen.print(credit_table(mean))
    screen.print(str(diagnosis), soft_wrap=True, markup=False, highlight=False)
    files = "blame.html, blame.png, blame.svg, attributions.jsonl, diagnosis.json"
    console.print(f"{len(found)} attributions in {out}: {files}")


def check_tokens(traces: Sequence[Trace], models: Mapping[str, LanguageModel]) -> None:
    """Refuses traces of other models: the recorded tokens must be those that the models' tokenizers give.

    Raises:
        ConfigError: they are not.
    """
    for trace in traces:
        for step in trace.steps:
            model = models.get(step.model or "")
            if (
                step.input_ids
                and isinstance(model, LocalModel)
                and model.tokenize(step.input_text)[0] != step.input_ids
            ):
                raise ConfigError(
                    f"task {trace.id!r}: {step.name!r} read other tokens than model {step.model!r} "
                    f"({model.config.path}) makes of its text",
                    hint="give the models that made the traces",
                )


def _wrong_runs(path: str, loss: Loss, *, skip_bad: bool) -> list[tuple[Trace, VerbalLoss]]:
    """The traces with a loss above 0; prints how many are left out, and why."""
    traces, bad = read_traces(path, skip_bad_lines=skip_bad)
    for line in bad:
        console.print(f"{path}, line {line.number} is not a trace: {line.problem}", style="yellow")
    reasons = [(trace, _failure(trace)) for trace in traces]
    finished = [trace for trace, reason in reasons if reason is None]
    pairs = [(trace, loss(trace)) for trace in finished]
    wrong = [(trace, found) for trace, found in pairs if found.value > 0]
    console.print(
        f"{path}: {len(traces)} traces, {len(bad)} malformed lines, {len(traces) - len(finished)} failed, "
        f"{len(pairs) - len(wrong)} without a loss, {len(wrong)} to attribute"
    )
    print_failures(reason for _, reason in reasons if reason is not None)
    return wrong


def _failure(trace: Trace) -> str | None:
    """Why a run cannot be attributed; None where it can."""
    found = half_character_in([(step.input_text, step.output) for step in trace.steps])
    return trace.failure or (None if found is None else f"task {trace.id!r} has {found}")


def _save(folder: Path, found: Sequence[Attribution], mean: Attribution, diagnosis: Diagnosis) -> None:
    worst_first = sorted(found, key=lambda each: -each.loss)
    title = f"Blame of {len(found)} runs, their mean first, then those with the largest losses"
    save_html(folder / "blame.html", [mean, *worst_first], title=title, conclusion=str(diagnosis))
    for end in ("png", "svg"):
        save_graph_plot(folder / f"blame.{end}", mean)
    with atomic_write(folder / "diagnosis.json") as stream:
        stream.write(json.dumps({"sentence": str(diagnosis), **to_json(diagnosis)}, indent=1).encode() + b"\n")
    with atomic_write(folder / "attributions.jsonl") as stream:
        for each in found:
            stream.write(json.dumps(to_json(each)).encode() + b"\n")
