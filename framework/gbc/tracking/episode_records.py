"""Who was to blame at a step of training, for users: the worst episodes with a credit for every token.

`blame/episodes.json` in a run's folder, and beside it `graph.svg`, the plot of the mean over the step's errors. Both
are whole files that the next such step replaces.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from framework.core.io import atomic_write
from framework.core.serialization import from_json, parse_object, to_json
from framework.tracking.secrets import scrubbed_output

FOLDER, EPISODES, GRAPH = "blame", "episodes.json", "graph.svg"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class CreditedText:
    """What an agent said or was told, and how much of the loss passes through each part.

    Attributes:
        name: whose it is.
        text: it, or a piece of it.
        credit: of all of it, in units of the loss.
        spans: start and end of parts of the text, in order, the end excluded.
        credits: of each part.
    """

    name: str
    text: str
    credit: float
    spans: tuple[tuple[int, int], ...]
    credits: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A task with errors.

    Attributes:
        id: of the task.
        loss: its value.
        loss_text: what was wrong, in words.
        walk: the strongest trajectory from the loss to an input.
        own: by agent, the credit that ends there.
        texts: in the order in which they came to be.
        left_out: texts that are not among them.
    """

    id: str
    loss: float
    loss_text: str
    walk: tuple[str, ...]
    own: dict[str, float]
    texts: tuple[CreditedText, ...]
    left_out: int = 0


@dataclass(frozen=True, kw_only=True)
class BlameOfStep:
    """The errors of an attributed step.

    Attributes:
        step: optimizer step, from 0, as the metrics count.
        errors: tasks with errors.
        loss: their mean.
        episodes: the worst of them, the worst first.
    """

    step: int
    errors: int
    loss: float
    episodes: tuple[Episode, ...]


def cleaned(episode: Episode) -> Episode:
    """An episode without secrets; a text that had one keeps its credit, but not that of its parts."""
    return replace(
        episode,
        id=scrubbed_output(episode.id),
        loss_text=scrubbed_output(episode.loss_text),
        texts=tuple(map(_cleaned_text, episode.texts)),
    )


def _cleaned_text(text: CreditedText) -> CreditedText:
    clean = scrubbed_output(text.text)
    if len(clean) == len(text.text):
        return replace(text, text=clean)
    # The parts are no longer where they were.
    return replace(text, text=clean, spans=((0, len(clean)),), credits=(sum(text.credits),))


def write_blame(run_dir: Path, blame: BlameOfStep, graph: str | None) -> None:
    """Writes both files; makes the folder.

    Args:
        run_dir: of the run.
        blame: written without secrets.
        graph: plot of the graph as an `<svg>` element; without one an earlier plot is removed.

    Raises:
        OSError: a file cannot be written.
    """
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if graph is None:
        (folder / GRAPH).unlink(missing_ok=True)
    else:
        _write(folder / GRAPH, graph)
    blame = replace(blame, episodes=tuple(map(cleaned, blame.episodes)))
    _write(folder / EPISODES, json.dumps({"format": FORMAT, **to_json(blame)}))


def read_blame(run_dir: Path) -> BlameOfStep | None:
    """What is in the run's folder, without secrets; None where there is nothing, or nothing that can be read."""
    try:
        entry = parse_object((run_dir / FOLDER / EPISODES).read_bytes())
        if entry.pop("format", None) != FORMAT:
            return None
        found = from_json(BlameOfStep, entry, allow_missing=True, ignore_unknown=True)
    except (OSError, ValueError):
        return None
    return replace(found, episodes=tuple(map(cleaned, found.episodes)))


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as stream:
        stream.write(text.encode() + b"\n")
