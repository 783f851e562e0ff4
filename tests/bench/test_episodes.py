"""The benchmark of attribution beside generation, on a model that is smaller still."""

import json

import pytest

from framework.bench import episodes as bench
from framework.bench import language_models as bench_models
from framework.cli.main import main
from framework.core.errors import ConfigError

SETTINGS = {**bench_models.SETTINGS["small"], "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}


@pytest.mark.slow
def test_every_number_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench_models.SETTINGS, "small", SETTINGS)
    out = tmp_path / "bench.json"
    lengths = ["--prompt", "8", "--read", "16", "--new", "[4, 12]", "--batch_size", "2", "--rounds", "2"]
    how = ["--device", "cpu", "--dtype", "bfloat16", "--scalars", "[sum_squares, finegrained]"]
    main(["bench", "episodes", "--out", str(out), *how, *lengths])
    found = json.loads(out.read_text())["episodes"]
    assert [(each["case"]["scalar"], each["case"]["new"]) for each in found] == [
        ("sum_squares", 4),
        ("sum_squares", 12),
        ("finegrained", 4),
        ("finegrained", 12),
    ]
    for each in found:
        assert each["dtype"] == "bfloat16"
        assert each["tokens_per_second"] == pytest.approx(2 * each["case"]["new"] / each["generation_seconds"])
        assert min(each["attribution_seconds"], each["added"]) > 0
    assert "bfloat16 on cpu" in capsys.readouterr().out


def test_what_cannot_be_measured():
    with pytest.raises(ConfigError, match="rounds is"):
        bench.bench_episodes(rounds=0)
    with pytest.raises(ConfigError, match="scalars is"):
        bench.bench_episodes(scalars=())
