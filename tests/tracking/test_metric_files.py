"""The starts' CSV files put together."""

import csv
from pathlib import Path

import framework.tracking.metric_files as files
from framework.tracking.metric_files import StepRow, last_values, merged_steps, write_merged


def write(run_dir: Path, version: int, *lines: str) -> None:
    folder = run_dir / "metrics" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("".join(line + "\n" for line in lines))


def test_every_step_is_there_once_with_the_newest_value_of_each_metric(tmp_path: Path):
    write(tmp_path, 0, "epoch,a,v,step", "0,1.0,,0", "0,2.0,,1", "0,,7.0,1", "0,3.0,,2")
    write(tmp_path, 1, "epoch,a,step", "0,2.5,1")
    assert merged_steps(tmp_path) == [
        StepRow(step=0, restart=0, values={"a": 1.0}),
        StepRow(step=1, restart=1, values={"a": 2.5, "v": 7.0}),
        StepRow(step=2, restart=0, values={"a": 3.0}),
    ]
    path = write_merged(tmp_path)
    assert path == tmp_path / "metrics.csv"
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[1] == {"step": "1", "attempt": "1", "a": "2.5", "v": "7.0"}
    assert [row["step"] for row in rows] == ["0", "1", "2"]


def test_nothing_to_merge(tmp_path: Path):
    assert write_merged(tmp_path) is None
    assert last_values(tmp_path) == (None, {})
    assert list(tmp_path.iterdir()) == []


def test_last_values_are_those_of_the_newest_start_that_has_any(tmp_path: Path):
    write(tmp_path, 0, "a,b,step", "1.0,5.0,0", "2.0,,1")
    write(tmp_path, 1, "a,step")
    assert last_values(tmp_path) == (1, {"a": 2.0, "b": 5.0})


def test_last_values_of_a_long_file_come_from_its_end(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "_TAIL_BYTES", 20)
    write(tmp_path, 0, "a,step", *(f"{step}.25,{step}" for step in range(100)))
    assert last_values(tmp_path) == (99, {"a": 99.25})
    with (tmp_path / "metrics/version_0/metrics.csv").open("a") as stream:
        stream.write("100.25,1")
    assert last_values(tmp_path) == (99, {"a": 99.25})
