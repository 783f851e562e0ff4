"""`framework bench attribution`: one teacher-forced pass against the graph kept through generation.

Time as in `framework.bench.language_models`. On a CPU, memory is what a process of its own gets resident above what it
had before.
"""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from rich.table import Table
from transformers import PreTrainedModel

from framework.bench.language_models import (
    Case,
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
from framework.core.errors import TrainingError
from framework.core.serialization import to_json
from framework.gbc.attribution.options import GradientOptions, Scalar
from framework.gbc.attribution.reference import kept_graph_scores
from framework.gbc.attribution.token_gradients import TokenScores, token_scores
from framework.gbc.execution.teacher_forcing import TokenRow
from framework.gbc.language_models.prefix_cache import prompt_states

Way = Literal["one_pass", "prompt_read", "kept", "kept_cached"]
_LARGEST_DIFFERENCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class PassSpeed:
    """One length of the answer: seconds are medians over the rounds, factors medians of the rounds' ratios.

    A way that does not fit into the device's memory is left out, and what is compared with it is None.

    Attributes:
        case: what was measured.
        seconds: of each way: `one_pass`; `prompt_read`, the same when an earlier pass has read the prompt, as all but
            the first of a run have; `kept` (the graph through prompt and generation) and `kept_cached` (the published
            prefix-based gradient: no graph of the prompt).
        generation_seconds: of generating as many tokens without gradients: the kept graph has that in it.
        batch_seconds: of one pass over a batch of answers with one prompt, which is read once for all.
        faster: kept / one_pass.
        faster_prompt_read: kept / prompt_read.
        faster_in_batch: kept for each answer / the batch.
        faster_cached: kept_cached / one_pass.
        faster_with_generation: kept / (one_pass + generation).
        peak_mib: of each way, above the model.
        memory: one_pass / kept.
        memory_cached: one_pass / kept_cached.
        difference: of the scores of one_pass and kept, the largest, relative to the largest score.
    """

    case: Case
    seconds: dict[Way, float]
    generation_seconds: float
    batch_seconds: float
    faster: float | None
    faster_prompt_read: float | None
    faster_in_batch: float | None
    faster_cached: float | None
    faster_with_generation: float | None
    peak_mib: dict[Way, float]
    memory: float | None
    memory_cached: float | None
    difference: float | None


_ROWS: tuple[tuple[str, str, Callable[[PassSpeed], float | None]], ...] = (
    ("one pass", "{:.3f} s", lambda each: each.seconds.get("one_pass")),
    ("the prompt read before", "{:.3f} s", lambda each: each.seconds.get("prompt_read")),
    ("kept graph", "{:.3f} s", lambda each: each.seconds.get("kept")),
    ("kept graph, prompt cached", "{:.3f} s", lambda each: each.seconds.get("kept_cached")),
    ("generation", "{:.3f} s", lambda each: each.generation_seconds),
    ("batch of one pass", "{:.3f} s", lambda each: each.batch_seconds),
    ("times faster", "{:.1f}", lambda each: each.faster),
    ("the prompt read before", "{:.1f}", lambda each: each.faster_prompt_read),
    ("in a batch", "{:.1f}", lambda each: each.faster_in_batch),
    ("prompt cached", "{:.1f}", lambda each: each.faster_cached),
    ("with generation", "{:.1f}", lambda each: each.faster_with_generation),
    ("memory of one pass", "{:,.0f} MiB", lambda each: each.peak_mib.get("one_pass")),
    ("of the kept graph", "{:,.0f} MiB", lambda each: each.peak_mib.get("kept")),
    ("prompt cached", "{:,.0f} MiB", lambda each: each.peak_mib.get("kept_cached")),
    ("one pass / kept", "{:.2f}", lambda each: each.memory),
    ("one pass / prompt cached", "{:.2f}", lambda each: each.memory_cached),
    ("largest relative difference", "{:.0e}", lambda each: each.difference),
)


def bench_attribution(
    out: Path | None = None,
    *,
    shape: Shape = "small",
    device: str = "auto",
    prompt: int = 512,
    read: int = 256,
    new: tuple[int, ...] = (64, 256),
    scalar: Scalar = "sum_squares",
    batch_size: int = 8,
    rounds: int = 5,
) -> dict[str, object]:
    """Measures attribution by one pass.

    Args:
        out: JSON file for the numbers.
        shape: of the model, with random weights; the larger ones are meant for a GPU.
        device: where to run, such as cpu or cuda; auto takes a GPU if there is one.
        prompt: tokens of the prompt, which get no gradients.
        read: input tokens with gradients.
        new: numbers of generated tokens.
        scalar: what is differentiated when the ways are compared.
        batch_size: answers in the batches that are attributed together.
        rounds: how often everything is measured.

    Returns:
        The numbers, as in the file.

    Raises:
        ConfigError: a number out of range, or a device that cannot be used.
        TrainingError: the ways give other scores in float32.
    """
    check_record(out)
    check_counts(prompt=prompt, read=read, new=new, rounds=rounds, batch_size=batch_size)
    device = str(pick_device(device))
    model = build_model(shape, device)
    cases = [Case(shape=shape, device=device, prompt=prompt, read=read, new=n, scalar=scalar) for n in new]
    passes = [
        measure_pass(model, case, batch_size=batch_size, rounds=rounds) for case in tracked(cases, "passes", bar=False)
    ]
    record = {
        **facts_of(device),
        "passes": [to_json(each) for each in passes],
    }
    _show(passes)
    write_record(out, record)
    return record


def measure_pass(
    model: PreTrainedModel,
    case: Case,
    *,
    batch_size: int,
    rounds: int,
    ways: Sequence[Way] = get_args(Way),
    processes: bool = True,
    warm_up: int = 1,
) -> PassSpeed:
    """The ways in turns for one answer, and one pass over a batch of answers.

    Args:
        model: as `build_model` makes it.
        case: lengths and scalar.
        batch_size: answers in the batch.
        rounds: how often everything is measured.
        ways: that are compared; `one_pass` among them.
        processes: on a CPU, the memory of each way is measured, which takes a process of its own.
        warm_up: rounds that do not count, after a run of each way.

    Raises:
        TrainingError: in float32, scores that differ by more than 1e-5.
    """
    first: dict[Way, _FirstRun] = {way: run for way in ways if (run := _run_first(model, case, way)) is not None}
    turns: dict[str, Callable[[], object]] = {way: (lambda way=way: _scores(model, case, way)) for way in first}
    turns["generation"] = lambda: generate_answers(model, [case.row()], case.new)
    rows, options = [case.row(number) for number in range(batch_size)], GradientOptions(scalar=case.scalar)
    turns["batch"] = lambda: _fresh(model, rows, options)
    seconds = measure_in_turns(turns, case.device, rounds, warm_up=warm_up)
    peaks: dict[Way, float] = {way: run.peak_mib for way, run in first.items() if run.peak_mib is not None}
    if processes and not case.device.startswith("cuda"):
        peaks = _peaks_of_processes(case, [way for way in first if way != "prompt_read"])
    difference = _difference(first["one_pass"].scores, first["kept"].scores) if "kept" in first else None
    if model.dtype == torch.float32 and difference is not None and not difference < _LARGEST_DIFFERENCE:
        raise TrainingError(f"the ways differ by {difference:.1e}", hint="report it: their scores must be equal")

    def faster(way: Way, than: np.ndarray) -> float | None:
        return float(np.median(seconds[way] / than)) if way in first else None

    def share(way: Way) -> float | None:
        return peaks["one_pass"] / peaks[way] if way in peaks else None

    return PassSpeed(
        case=case,
        seconds={way: float(np.median(seconds[way])) for way in first},
        generation_seconds=float(np.median(seconds["generation"])),
        batch_seconds=float(np.median(seconds["batch"])),
        faster=faster("kept", seconds["one_pass"]),
        faster_prompt_read=faster("kept", seconds["prompt_read"]) if "prompt_read" in first else None,
        faster_in_batch=faster("kept", seconds["batch"] / batch_size),
        faster_cached=faster("kept_cached", seconds["one_pass"]),
        faster_with_generation=faster("kept", seconds["one_pass"] + seconds["generation"]),
        peak_mib=peaks,
        memory=share("kept"),
        memory_cached=share("kept_cached"),
        difference=difference,
    )


@dataclass(frozen=True, kw_only=True)
class _FirstRun:
    """What a way gives, and on a GPU the most memory that it takes above the model."""

    scores: TokenScores
    peak_mib: float | None


def _run_first(model: PreTrainedModel, case: Case, way: Way) -> _FirstRun | None:
    """A run of a way; None where memory is not enough, as it may be for the kept graph of a long answer."""
    on_gpu = case.device.startswith("cuda")
    before = _allocated_anew() if on_gpu else 0
    try:
        scores = _scores(model, case, way)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if on_gpu else None
    return _FirstRun(scores=scores, peak_mib=peak)


def _allocated_anew() -> int:
    """Bytes of a GPU's tensors, from which its peak is looked for anew."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _difference(ours: TokenScores, theirs: TokenScores) -> float:
    return ((ours.l1 - theirs.l1).abs().max() / theirs.l1.abs().max()).item()


def _scores(model: PreTrainedModel, case: Case, way: Way) -> TokenScores:
    options = GradientOptions(scalar=case.scalar)
    if way == "one_pass":
        return _fresh(model, [case.row()], options)[0]
    if way == "prompt_read":
        return token_scores(model, [case.row()], options)[0]
    return kept_graph_scores(model, case.row(), case.scalar, cache_prefix=way == "kept_cached")


def _fresh(model: PreTrainedModel, rows: Sequence[TokenRow], options: GradientOptions) -> list[TokenScores]:
    """A pass that reads its prompts, whatever was read before."""
    prompt_states(model).clear()
    return token_scores(model, rows, options)


def _peaks_of_processes(case: Case, ways: Sequence[Way]) -> dict[Way, float]:
    # Ctrl-C ends it without a word of its own.
    spawn, quietly = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_DFL)
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=signal.signal, initargs=quietly) as pool:
        return pool.submit(_peaks_of_forks, case, ways, torch.get_num_threads()).result()


def _peaks_of_forks(case: Case, ways: Sequence[Way], num_threads: int) -> dict[Way, float]:
    """Each way in a fork of this fresh process, which has done the imports and nothing else."""
    peaks: dict[Way, float] = {}
    for way in ways:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            peaks[way] = pool.submit(_resident_peak_mib, case, way, num_threads).result()
    return peaks


def _resident_peak_mib(case: Case, way: Way, num_threads: int) -> float:
    """In a process of its own: what the way gets resident above the model."""
    torch.set_num_threads(num_threads)
    model = build_model(case.shape, case.device)
    # A short answer first, for what is made once.
    _scores(model, replace(case, prompt=2, read=2, new=2), way)
    # Sets the peak back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status_mib("VmRSS")
    _scores(model, case, way)
    return _status_mib("VmHWM") - before


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def _show(passes: list[PassSpeed]) -> None:
    case = passes[0].case
    title = f"{case.shape} on {case.device}: prompt {case.prompt}, read {case.read}, {case.scalar}"
    table = Table(title=f"{title}: one pass against the kept graph")
    table.add_column("new tokens")
    for each in passes:
        table.add_column(str(each.case.new), justify="right")
    for name, pattern, value in _ROWS:
        table.add_row(name, *(_cell(value(each), pattern) for each in passes))
    results().print(table)


def _cell(value: float | None, pattern: str) -> str:
    return "no memory" if value is None else pattern.format(value)
