"""Data that differ are told apart, in words that say how."""

from dataclasses import replace
from pathlib import Path

from framework.tracking.data_identity import (
    FILE,
    DataIdentity,
    SetIdentity,
    class_changes,
    data_changes,
    note_data,
    read_data,
)

ONE = SetIdentity(path="shards/one", digest="1" * 64, num_samples=24)
TWO = SetIdentity(path="shards/two", digest="2" * 64, num_samples=1000)
DATA = DataIdentity(classes=("cat", "dog"), train=(ONE, TWO), validation=ONE)


def test_class_changes():
    assert class_changes(("cat", "dog"), ("cat", "dog")) == []
    # A folder is renamed: the names are sorted anew, and every label shifts.
    assert class_changes(("cat", "dog"), ("dog", "zebra")) == [
        "'cat', class 0, is gone",
        "'dog' was class 1 and is 0",
        "'zebra' is new as class 1",
    ]
    assert class_changes((), ("cat",)) == ["'cat' is new as class 0"]
    many = class_changes([str(n) for n in range(100)], [str(n) for n in reversed(range(100))])
    assert many[0] == "'0' was class 0 and is 99"
    assert many[5:] == ["and so on with 95 classes more"]


def test_data_changes():
    # Where a set lies does not matter, nor what is validated on.
    moved = replace(DATA, train=(replace(ONE, path="elsewhere"), TWO), validation=None)
    assert data_changes(DATA, moved) == []
    assert data_changes(DATA, replace(DATA, train=(TWO, ONE))) == ["the shard sets are in another order"]
    assert data_changes(DATA, replace(DATA, train=(ONE,))) == ["2 shard sets were trained on, and now 1"]
    other = replace(TWO, digest="3" * 64, num_samples=999)
    assert data_changes(DATA, replace(DATA, classes=("cat", "cow"), train=(ONE, other))) == [
        "'dog', class 1, is gone",
        "'cow' is new as class 1",
        "shards/two is not shards/two as it was (digest 333333333333, was 222222222222; 999 samples, were 1,000)",
    ]


def test_what_a_run_reads_is_in_its_folder(tmp_path: Path):
    assert read_data(tmp_path) is None
    note_data(tmp_path, DATA)
    assert read_data(tmp_path) == DATA
    (tmp_path / FILE).write_text("{half")
    assert read_data(tmp_path) is None
