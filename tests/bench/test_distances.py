"""The benchmark of the measures on small images."""

import json
from pathlib import Path

import pytest

from framework.bench.distances import bench_distances
from framework.core.errors import ConfigError


@pytest.mark.slow
def test_bench_distances_writes_what_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record = bench_distances(tmp_path / "out.json", num_images=30, sides=(4, 6), most_usual_side=4)
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(json.dumps(record))
    frechet, *_, machine = record["measured"][:4]
    assert frechet["difference"] < 1e-4
    assert machine["difference"] == 0
    assert [each["usual_seconds"] for each in record["measured"][4:]] == [None] * 4
    assert "Fréchet distance" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="9 images of sides"):
        bench_distances(num_images=9)
