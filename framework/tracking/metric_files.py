"""A run's metrics from its CSV files, one file for each start, put together so that every step is there once."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from framework.core.io import atomic_write
from framework.tracking.run_folder import METRICS

MERGED = "metrics.csv"
RESTART_COLUMN = "attempt"
"""Of the restart count; files that were written before have it too."""
Series = dict[int, float]
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """The metrics of a step.

    Attributes:
        step: optimizer step, from 0.
        restart: restart count of the newest start that took it, from 0.
        values: of each metric the newest start's.
    """

    step: int
    restart: int
    values: dict[str, float]


def merged_steps(run_dir: Path) -> list[StepRow]:
    """Every step exactly once, in order; where several starts took it, the newest value of each metric counts."""
    rows: dict[int, StepRow] = {}
    for restart, step, values in _rows(run_dir):
        # Starts come in their order, and so do the rows of each.
        before = rows.get(step)
        rows[step] = StepRow(step=step, restart=restart, values={**(before.values if before else {}), **values})
    return [rows[step] for step in sorted(rows)]


def read_metrics(run_dir: Path) -> dict[str, Series]:
    """Every metric's values by step; where a resumed run took a step again, the later value."""
    series: dict[str, Series] = defaultdict(dict)
    for row in merged_steps(run_dir):
        for name, value in row.values.items():
            series[name][row.step] = value
    return dict(sorted(series.items()))


def last_values(run_dir: Path) -> tuple[int | None, dict[str, float]]:
    """The last step in the newest start's file, and the last value there of each metric; reads the file's end only."""
    for file in reversed(_files(run_dir)):
        with file.open("rb") as stream:
            header = stream.readline()
            begin = max(len(header), file.stat().st_size - _TAIL_BYTES)
            stream.seek(begin)
            lines = stream.read().decode(errors="replace").rpartition("\n")[0].splitlines()
        if begin > len(header):
            # A piece of a line.
            lines = lines[1:]
        step: int | None = None
        values: dict[str, float] = {}
        for row in csv.DictReader([header.decode(), *lines]):
            step = int(row.pop("step"))
            values |= {name: float(value) for name, value in row.items() if value and name != "epoch"}
        if step is not None:
            return step, values
    return None, {}


def write_merged(run_dir: Path) -> Path | None:
    """Writes `metrics.csv` into the run's folder, a row for each step with its restart count; None without any step."""
    rows = merged_steps(run_dir)
    if not rows:
        return None
    names = sorted({name for row in rows for name in row.values})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", RESTART_COLUMN, *names])
    for row in rows:
        writer.writerow([row.step, row.restart, *(row.values.get(name, "") for name in names)])
    with atomic_write(run_dir / MERGED) as file:
        file.write(text.getvalue().encode())
    return run_dir / MERGED


def _rows(run_dir: Path) -> Iterator[tuple[int, int, dict[str, float]]]:
    """(restart count, step, values) of every line; what a killed process left in pieces is passed over."""
    for file in _files(run_dir):
        # What follows the end of the last line was being written when the process was killed.
        whole_lines, _, _ = file.read_text(encoding="utf-8", errors="replace").rpartition("\n")
        for row in csv.DictReader(whole_lines.splitlines()):
            step = int(row.pop("step"))
            values = {name: float(value) for name, value in row.items() if value and name != "epoch"}
            yield int(file.parent.name[8:]), step, values


def _files(run_dir: Path) -> list[Path]:
    return sorted((run_dir / METRICS).glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name[8:]))
