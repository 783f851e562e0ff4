"""The results as one table that can be pasted into `docs/benchmarks/gpu.md`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framework.bench.gpu.session import read_lines

TABLE = "table.md"
_OWN = ("part", "name")


def save_table(folder: Path) -> str:
    """Writes the results so far as `table.md`; returns the text."""
    text = make_table(read_lines(folder))
    (folder / TABLE).write_text(text)
    return text


def make_table(lines: list[dict[str, Any]]) -> str:
    """A row for each measurement, in the order in which they came.

    Args:
        lines: of the results; of several benchmarks in one folder the last one counts.
    """
    starts = [number for number, line in enumerate(lines) if line["part"] == "benchmark"]
    lines = lines[starts[-1] :] if starts else lines
    rows = ["| part | what | figures |", "|---|---|---|"]
    for line in lines:
        cells = (line["part"], line["name"], _figures(line))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _figures(line: Mapping[str, Any]) -> str:
    figures = {key: value for key, value in line.items() if key not in _OWN and value is not None}
    return ", ".join(f"{key} {_cell(value)}" for key, value in figures.items())


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_cell, value)) + "]"
    return str(value)
