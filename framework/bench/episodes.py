"""`framework bench episodes`: what attribution adds to the generation of a batch of answers.

Models have random weights. Every answer is attributed; a training attributes those of the failed tasks alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from rich.table import Table
from transformers import PreTrainedModel

from framework.bench.language_models import (
    Case,
    Dtype,
    Shape,
    build_model,
    check_counts,
    facts_of,
    generate_answers,
    measure_in_turns,
)
from framework.bench.record import check_record, write_record
from framework.core.console import results, tracked
from framework.core.devices import pick_device
from framework.core.serialization import to_json
from framework.gbc.attribution.options import GradientOptions, Scalar
from framework.gbc.attribution.token_gradients import token_scores


@dataclass(frozen=True, kw_only=True)
class EpisodeCost:
    """A batch of answers: generated, then attributed.

    Attributes:
        case: what was measured.
        dtype: of the model.
        batch_size: answers.
        tokens_per_second: of generation without gradients.
        generation_seconds: of the batch.
        attribution_seconds: of the batch.
        added: attribution / generation, the median over the rounds.
    """

    case: Case
    dtype: str
    batch_size: int
    tokens_per_second: float
    generation_seconds: float
    attribution_seconds: float
    added: float


def bench_episodes(
    out: Path | None = None,
    *,
    shape: Shape = "small",
    device: str = "auto",
    dtype: Dtype = "auto",
    prompt: int = 512,
    read: int = 256,
    new: tuple[int, ...] = (64, 256),
    scalars: tuple[Scalar, ...] = ("sum_squares",),
    batch_size: int = 8,
    rounds: int = 5,
) -> dict[str, object]:
    """Measures generation and attribution of batches of answers.

    Args:
        out: JSON file for the numbers.
        shape: of the model, with random weights.
        device: where to run, such as cpu or cuda; auto takes a GPU if there is one.
        dtype: of the model; auto is float32 on a CPU and bfloat16 elsewhere.
        prompt: tokens of the prompt, the same in all answers, which get no gradients.
        read: input tokens with gradients.
        new: numbers of generated tokens.
        scalars: what is differentiated.
        batch_size: answers in a batch.
        rounds: how often everything is measured.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range, or a device that cannot be used.
    """
    check_record(out)
    check_counts(prompt=prompt, read=read, new=new, rounds=rounds, batch_size=batch_size, scalars=scalars)
    device = str(pick_device(device))
    model = build_model(shape, device, dtype)
    costs = [
        measure_episodes(
            model,
            Case(shape=shape, device=device, prompt=prompt, read=read, new=count, scalar=scalar),
            batch_size=batch_size,
            rounds=rounds,
        )
        for scalar, count in tracked(list(product(scalars, new)), "episodes", bar=False)
    ]
    record = {
        **facts_of(device),
        "episodes": [to_json(each) for each in costs],
    }
    _show(costs)
    write_record(out, record)
    return record


def measure_episodes(model: PreTrainedModel, case: Case, *, batch_size: int, rounds: int) -> EpisodeCost:
    """A batch of answers with one prompt, generated and attributed in turns.

    Args:
        model: as `build_model` makes it.
        case: lengths and scalar.
        batch_size: answers in the batch.
        rounds: how often both are measured.
    """
    rows = [case.row(number) for number in range(batch_size)]
    ways: dict[str, Callable[[], object]] = {
        "generation": lambda: generate_answers(model, rows, case.new),
        "attribution": lambda: token_scores(model, rows, GradientOptions(scalar=case.scalar)),
    }
    seconds = measure_in_turns(ways, case.device, rounds)
    generation = float(np.median(seconds["generation"]))
    return EpisodeCost(
        case=case,
        dtype=str(model.dtype).removeprefix("torch."),
        batch_size=batch_size,
        tokens_per_second=batch_size * case.new / generation,
        generation_seconds=generation,
        attribution_seconds=float(np.median(seconds["attribution"])),
        added=float(np.median(seconds["attribution"] / seconds["generation"])),
    )


def _show(costs: list[EpisodeCost]) -> None:
    case = costs[0].case
    title = f"{case.shape}, {costs[0].dtype} on {case.device}: prompt {case.prompt}, read {case.read}"
    table = Table(title=f"{title}: batches of {costs[0].batch_size} answers")
    for name in ("new", "scalar", "tokens per second", "generation", "attribution", "added to generation"):
        table.add_column(name, justify="right")
    for cost in costs:
        seconds = (f"{each:.2f} s" for each in (cost.generation_seconds, cost.attribution_seconds))
        table.add_row(
            str(cost.case.new), cost.case.scalar, f"{cost.tokens_per_second:,.0f}", *seconds, f"{cost.added:.0%}"
        )
    results().print(table)
