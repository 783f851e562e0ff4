"""Thousands of ranks, made smaller: equal shares, no sample twice, numbers in the file."""

import json
from pathlib import Path

import pytest

from framework.bench.scale import bench_scale
from framework.core.errors import ConfigError


def test_a_small_simulation(tmp_path: Path):
    out = tmp_path / "scale.json"
    bench_scale(out, num_samples=50_000, num_ranks=64, micro_batch=4, asked_ranks=3, store_ranks=(8,), gloo_ranks=(3,))
    found = json.loads(out.read_text())
    assert [each["shuffle"] for each in found["orders"]] == ["none", "shards", "block", "full"]
    assert all(each["shares"] == [4, 4] and each["repeated"] == 0 for each in found["orders"])
    assert found["stores"][0]["num_ranks"] == 8
    assert found["stores"][0]["read_seconds"] > 0
    assert [(each["num_ranks"], each["over"], each["divided"]) for each in found["votes"]] == [
        (3, "gloo", 0),
        (8, "store", 0),
    ]


def test_too_few_samples():
    with pytest.raises(ConfigError, match="100 samples, 64 ranks"):
        bench_scale(num_samples=100, num_ranks=64)
