"""The table of the results."""

import json
from pathlib import Path

from framework.bench.gpu.session import RESULTS
from framework.bench.gpu.table import make_table, save_table


def test_the_table_is_of_the_last_benchmark(tmp_path: Path):
    lines = [
        {"part": "benchmark", "name": "started", "torch": "1"},
        {"part": "step", "name": "old", "ms": 3.0},
        {"part": "benchmark", "name": "started", "torch": "2"},
        {"part": "step", "name": "a | b", "ms": 12.3456, "peak_gib": None, "stalls": [0.5, 1.0]},
    ]
    (tmp_path / RESULTS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = save_table(tmp_path)
    assert text == make_table(lines) == (tmp_path / "table.md").read_text()
    assert text.splitlines()[2:] == [
        "| benchmark | started | torch 2 |",
        "| step | a \\| b | ms 12.35, stalls [0.5, 1] |",
    ]
