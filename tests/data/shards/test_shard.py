"""One shard: what is written is found again, byte for byte, and rows say where."""

from pathlib import Path

import numpy as np
import pytest

from framework.data.shards.shard import NO_LABEL, Sample, index_rows, scan_shard, write_shard
from framework.testing.tars import image_bytes, write_tar


def test_images_and_labels_are_found_where_the_rows_say(tmp_path: Path):
    images = [image_bytes(10 * number) for number in range(3)]
    path = tmp_path / "a.tar"
    write_shard(path, (Sample(key=7 + n, suffix="png", data=data, label=n % 2) for n, data in enumerate(images)))
    scan = scan_shard(path)
    assert (scan.kind, scan.ignored) == ("images", {})
    assert [found.member.name for found in scan.samples] == ["000000007.png", "000000008.png", "000000009.png"]
    rows = index_rows(scan.samples, {})
    assert rows.dtype == np.int64
    assert rows[:, 2].tolist() == [0, 1, 0]
    content = path.read_bytes()
    assert [content[start : start + size] for start, size, _ in rows.tolist()] == images


def test_bytes_depend_on_the_samples_alone(tmp_path: Path):
    for name in "ab":
        write_shard(tmp_path / name, [Sample(key=0, suffix="json", data=b"{}", label=None)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    scan = scan_shard(tmp_path / "a")
    assert scan.kind == "episodes"
    assert index_rows(scan.samples, {})[0, 2] == NO_LABEL


def test_a_name_is_a_number_by_the_classes(tmp_path: Path):
    write_tar(
        tmp_path / "a.tar", [("x.png", image_bytes(1)), ("x.cls", b"dog"), ("y.png", image_bytes(2)), ("y.cls", b"5")]
    )
    found = scan_shard(tmp_path / "a.tar").samples
    assert index_rows(found, {"cat": 0, "dog": 1})[:, 2].tolist() == [1, 5]
    with pytest.raises(ValueError, match=r"'x.png' has the label 'dog', which is not a class"):
        index_rows(found, {"cat": 0})


def test_a_shard_that_fails_is_not_there(tmp_path: Path):
    def samples():
        yield Sample(key=0, suffix="png", data=b"x", label=0)
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_shard(tmp_path / "a.tar", samples())
    assert list(tmp_path.iterdir()) == []
