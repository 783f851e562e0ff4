"""A run's metrics from its CSV files, one file for each start, put together so that every step is there once."""

import csv
import io
import re
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
_FOLDER = re.compile(r"version_(\d{1,9})")
_STEP = "step"
_WHOLE = re.compile(r"\d{1,18}")


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
    for _, file in reversed(_numbered_files(run_dir)):
        with file.open("rb") as stream:
            header = stream.readline()
            begin = max(len(header), file.stat().st_size - _TAIL_BYTES)
            stream.seek(begin)
            lines = stream.read()
        if begin > len(header):
            # A piece of a line.
            lines = lines.partition(b"\n")[2]
        step: int | None = None
        values: dict[str, float] = {}
        for step, row in _whole_rows(header + lines):  # noqa: B007 - the last one is asked for
            values |= row
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
    """(restart count, step, values) of every line."""
    for restart, file in _numbered_files(run_dir):
        for step, values in _whole_rows(file.read_bytes()):
            yield restart, step, values


def _whole_rows(data: bytes) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, values) of every line of a CSV file that has all its cells; what is not a number is left out.

    A killed process, a full disk or an editor may have left pieces of lines, zero bytes, or another heading.
    """
    names: list[str] = []
    # What follows the end of the last line was being written when the process was killed.
    for line in data.decode("utf-8-sig", errors="replace").split("\n")[:-1]:
        cells = line.strip().split(",")
        if _STEP in cells:
            names = next(csv.reader([line.strip()]))
        elif len(cells) == len(names):
            row = dict(zip(names, cells, strict=True))
            if _WHOLE.fullmatch(step := row.pop(_STEP)):
                row.pop("epoch", None)
                yield int(step), {name: number for name, cell in row.items() if (number := _number(cell)) is not None}


def _number(cell: str) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return None


def _numbered_files(run_dir: Path) -> list[tuple[int, Path]]:
    """The starts' files with their restart counts; folders of other names, such as copies, are passed over."""
    found = (run_dir / METRICS).glob("version_*/metrics.csv")
    numbers = [(match, path) for path in found if path.is_file() and (match := _FOLDER.fullmatch(path.parent.name))]
    return sorted((int(match[1]), path) for match, path in numbers)
