"""The files of benchmarks."""

import json
from pathlib import Path

from framework.bench.record import machine_of, write_record


def test_a_record_is_a_file_if_one_is_named(tmp_path: Path):
    write_record(tmp_path / "runs/bench.json", {"machine": machine_of(), "seconds": [1.5]})
    found = json.loads((tmp_path / "runs/bench.json").read_text())
    assert found["seconds"] == [1.5]
    assert "cores, Python" in found["machine"]
    write_record(None, {})
