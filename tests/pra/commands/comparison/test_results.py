"""Results as files, lines and a table; spreads over seeds."""

import json
from pathlib import Path
from typing import Any

import pytest

from framework.core.errors import DataError
from framework.pra.commands.comparison.results import (
    PartResult,
    Spread,
    quantities,
    read_result,
    spreads,
    write_all,
    write_result,
)


def result(**changes: Any) -> PartResult:
    fields: dict[str, Any] = {
        "variant": "pra",
        "image_size": 8,
        "token_size": 12,
        "seed": 0,
        "num_parameters": 1000,
        "metrics": {"1": {"frechet_distance/net": 2.0, "svm_accuracy/samples": 0.5}},
        "rollout_gap": 1.25,
        "reconstruction_l1": 0.1,
        "settings": {"num": 5, "guidance": [1.0]},
    }
    return PartResult(**{**fields, **changes})


def test_a_spread_is_mean_least_and_largest():
    spread = Spread.of([1.0, 2.0, 6.0])
    assert (spread.mean, spread.low, spread.high, spread.num) == (3.0, 1.0, 6.0, 3)
    assert str(spread) == "3.000 (1.000 to 6.000)"
    assert str(Spread.of([2.0])) == "2.000"


def test_the_mean_of_equal_numbers_is_one_of_them():
    assert sum([0.1] * 3) / 3 > 0.1
    assert Spread.of([0.1] * 3) == Spread(mean=0.1, low=0.1, high=0.1, num=3)


def test_spreads_by_row_and_size():
    found = spreads([result(), result(seed=1, rollout_gap=0.75), result(image_size=16)], lambda part: part.rollout_gap)
    assert found == {("pra", 8): Spread.of([1.25, 0.75]), ("pra", 16): Spread.of([1.25])}
    assert spreads([result(reconstruction_l1=None)], lambda part: part.reconstruction_l1) == {}


def test_a_result_outlives_its_file(tmp_path: Path):
    assert read_result(tmp_path) is None
    write_result(tmp_path, result())
    assert read_result(tmp_path) == result()
    (tmp_path / "result.json").write_text('{"variant": "pra"')
    with pytest.raises(DataError, match=r"result.json is not a result .*remove it"):
        read_result(tmp_path)


@pytest.mark.parametrize("name", ["fid", "frechet_distance/net"])
def test_the_distance_whatever_its_network(name: str):
    part = result(metrics={"1": {"precision/net": 0.5, name: 3.0}})
    assert part.distance("1") == 3.0


def test_each_column_has_its_own_scale():
    part = result(metrics={"1": {"fid": 1.0}, "1.5": {"fid": 2.0}})
    columns = quantities([part])
    assert [columns[f"Fréchet, guidance {scale}"](part) for scale in ("1", "1.5")] == [1.0, 2.0]


def test_lines_and_table(tmp_path: Path):
    rows = [result(), result(seed=1, rollout_gap=0.75), result(variant="diffusion", reconstruction_l1=None)]
    write_all(tmp_path, rows, {8: 0.5})
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["variant"] for line in lines] == ["pra", "pra", "diffusion"]
    table = (tmp_path / "table.md").read_text().splitlines()
    columns = ["row", "token", "parameters", "seeds", "Fréchet, guidance 1", "SVM accuracy, guidance 1", "rollout gap"]
    assert table[0].startswith("| " + " | ".join(columns))
    assert table[2].startswith("| `pra` | 12 | 1,000 | 2 | 2.000 (2.000 to 2.000) |")
    assert table[2].endswith("| 1.000 (0.750 to 1.250) | 0.100 (0.100 to 0.100) |")
    assert table[3].endswith("| 1.250 | - |")
    assert table[-1] == "Training images of 8 pixels are at 0.500 from the held-out ones."


def test_a_table_for_each_number_of_training_steps(tmp_path: Path):
    rows = [result(training_steps=steps, rollout_gap=steps / 1000) for steps in (1000, 2000)]
    write_all(tmp_path, rows, {8: 0.5})
    table = (tmp_path / "table.md").read_text().splitlines()
    assert [line for line in table if line.startswith("After")] == [
        "After 2,000 training steps:",
        "After 1,000 training steps:",
    ]
    assert [line.split("|")[7].strip() for line in table if "`pra`" in line] == ["2.000", "1.000"]


def test_results_of_before_training_steps_are_read(tmp_path: Path):
    write_result(tmp_path, result())
    older = json.loads((tmp_path / "result.json").read_text())
    del older["training_steps"]
    (tmp_path / "result.json").write_text(json.dumps(older))
    assert read_result(tmp_path) == result()
