"""Distances over steps: lines over seeds, the table, and what is read back."""

from pathlib import Path
from typing import Any

import pytest

from framework.core.errors import DataError
from framework.pra.commands.head_steps.results import (
    StepPoint,
    StepResult,
    lines_of,
    read_results,
    reference_of,
    scales_of,
    write_results,
    write_table,
)
from framework.pra.sampling import SamplerConfig


def result(distance: float, *, label: str = "flow", seed: int = 0, **sampler: Any) -> StepResult:
    sampler = {"steps": 4, "guidance": 1.5, **sampler}
    point = StepPoint(
        label=label, weights_sha256="a" * 64, sampler=SamplerConfig(**sampler), seed=seed, settings={"num": 9}
    )
    return StepResult(point=point, distance=distance, class_accuracy=None)


RESULTS = [
    result(3.0, steps=4),
    result(5.0, steps=4, seed=1),
    result(2.0, steps=100),
    result(2.08, label="few", method="jump"),
    result(9.0, label="few", method="jump", steps=1),
    result(2.11, label="few", method="jump", time_shift=2.0),
    result(7.0, guidance=1.0),
]


def test_lines_are_of_a_label_and_a_sampler_over_seeds():
    flow, jump, shifted = lines_of(RESULTS, 1.5)
    assert [flow.name, jump.name] == ["flow, euler_maruyama", "few, jump"]
    assert shifted.name == "few, jump, time shift 2"
    assert (flow.at[4].mean, flow.at[4].low, flow.at[4].high) == (4.0, 3.0, 5.0)
    assert reference_of([flow, jump, shifted]).mean == 2.0
    assert scales_of(RESULTS) == [1.0, 1.5]


def test_the_table_says_how_many_steps_are_as_good_as_the_most_of_the_first_line(tmp_path: Path):
    write_table(tmp_path / "steps.md", RESULTS)
    assert (tmp_path / "steps.md").read_text().splitlines() == [
        "| guidance 1 | 4 | steps for 1.05 times the first line's 4 |",
        "|---|---|---|",
        "| flow, euler_maruyama | 7.000 | 4 |",
        "",
        "| guidance 1.5 | 1 | 4 | 100 | steps for 1.05 times the first line's 100 |",
        "|---|---|---|---|---|",
        "| flow, euler_maruyama | - | 4.000 (3.000 to 5.000) | 2.000 | 100 |",
        "| few, jump | 9.000 | 2.080 | - | 4 |",
        "| few, jump, time shift 2 | - | 2.110 | - | - |",
    ]


def test_results_are_read_as_they_were_written(tmp_path: Path):
    path = tmp_path / "steps.jsonl"
    assert read_results(path) == []
    write_results(path, RESULTS)
    assert read_results(path) == RESULTS
    path.write_text('{"point": 3}\n')
    with pytest.raises(DataError, match="holds other things than results"):
        read_results(path)
