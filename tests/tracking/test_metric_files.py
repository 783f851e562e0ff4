"""The starts' CSV files put together."""

import csv
from pathlib import Path

import pytest

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


DAMAGE = {
    "another heading": b"a,b,step\n1,2,0\na,b,step\n3,4,1\n",
    "a heading of other columns": b"a,b,step\n1,2,0\nb,step,a\n4,1,3\n",
    "a mark and carriage returns": b"\xef\xbb\xbfa,b,step\r\n1,2,0\r\n3,4,1\r\n",
    "half a line, then a whole one": b"a,b,step\n1,2,0\n9,3,4,1\n3,4,1\n",
    "a piece of a line": b"a,b,step\n1,2,0\n3,4,1\n5,",
    "zero bytes of a full disk": b"a,b,step\n1,2,0\n3,4,1\n\0\0\0\0\n",
    "another encoding": b"a,b,step\n\xe9,\xff,2\n1,2,0\n3,4,1\n".replace(b"2\n1", b"x\n1"),
    "words, no step, a step of too many digits": b"a,b,step\n1,2,0\n3,4,1\n1,1,\n1,1,1.0\n1,1," + b"9" * 5000 + b"\n",
    "a quote": b'a,b,step\n1,2,0\n"1,2\n3,4,1\n',
}


@pytest.mark.parametrize("data", DAMAGE.values(), ids=DAMAGE)
def test_damage_hides_no_whole_line(tmp_path: Path, data: bytes):
    folder = tmp_path / "metrics" / "version_0"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_bytes(data)
    assert [(row.step, row.values) for row in merged_steps(tmp_path)] == [(0, {"a": 1, "b": 2}), (1, {"a": 3, "b": 4})]
    assert last_values(tmp_path) == (1, {"a": 3, "b": 4})


@pytest.mark.parametrize("data", [b"", bytes(range(256)), "a,step\n1,0\n".encode("utf-16"), b"a,b\n1,2\n"])
def test_a_file_of_something_else_has_no_steps(tmp_path: Path, data: bytes):
    write(tmp_path, 0, "a,step", "1.5,0")
    for name in ("version_1", "version_old", "version_0 (copy)"):
        (tmp_path / "metrics" / name).mkdir()
        (tmp_path / "metrics" / name / "metrics.csv").write_bytes(data)
    (tmp_path / "metrics" / "version_2" / "metrics.csv").mkdir(parents=True)
    assert merged_steps(tmp_path) == [StepRow(step=0, restart=0, values={"a": 1.5})]
    assert last_values(tmp_path) == (0, {"a": 1.5})
