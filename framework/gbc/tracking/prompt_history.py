"""Every prompt that a run has tried: a line for each in `prompts.jsonl` in its folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from framework.core.io import append_lines, atomic_write
from framework.core.serialization import from_json, parse_object, to_json
from framework.tracking.secrets import scrubbed_output

FILE = "prompts.jsonl"


@dataclass(frozen=True, kw_only=True)
class TriedPrompt:
    """A prompt of one agent that was tried in place of another.

    Attributes:
        step: optimizer step, from 0, as the metrics count.
        trial: number of the trial, from 0; one that changes several agents together has a record for each.
        agent: whose prompt.
        kept: whether it took the place of the other.
        loss_before, loss: held-out loss without and with it.
        before, after: the prompt that it should replace, and itself.
    """

    step: int
    trial: int
    agent: str
    kept: bool
    loss_before: float
    loss: float
    before: str
    after: str


def note_prompts(run_dir: Path, tried: Sequence[TriedPrompt]) -> None:
    """Adds to the run's list, without secrets. Raises OSError."""
    run_dir.mkdir(parents=True, exist_ok=True)
    append_lines(run_dir / FILE, map(_line, tried))


def forget_prompts(run_dir: Path, *, from_step: int) -> None:
    """Takes those of the steps that a new start makes again out of the list. Raises OSError."""
    file = run_dir / FILE
    if not file.is_file():
        return
    kept = [each for each in read_prompts(run_dir) if each.step < from_step]
    with atomic_write(file) as stream:
        stream.write("".join(f"{_line(each)}\n" for each in kept).encode())


def read_prompts(run_dir: Path) -> list[TriedPrompt]:
    """The run's list, in its order; what a killed process left in pieces is passed over."""
    file = run_dir / FILE
    found: list[TriedPrompt] = []
    for line in file.read_bytes().split(b"\n") if file.is_file() else ():
        try:
            found.append(from_json(TriedPrompt, parse_object(line), ignore_unknown=True))
        except ValueError:
            continue
    return found


def _line(tried: TriedPrompt) -> str:
    clean = replace(tried, before=scrubbed_output(tried.before), after=scrubbed_output(tried.after))
    return json.dumps(to_json(clean))
