"""The benchmark of attribution on a model that is smaller still."""

import json

import pytest

from framework.bench import attribution as bench
from framework.bench import language_models as bench_models
from framework.cli.main import main
from framework.core.errors import ConfigError

SETTINGS = {**bench_models.SETTINGS["small"], "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}


@pytest.mark.slow
def test_every_number_is_measured(tmp_path, monkeypatch, capsys):
    # Memory is measured in processes of their own, on the shape as it is.
    monkeypatch.setitem(bench_models.SETTINGS, "small", SETTINGS)
    out = tmp_path / "bench.json"
    lengths = ["--prompt", "8", "--read", "64", "--new", "[48]", "--batch_size", "2", "--rounds", "2"]
    main(["bench", "attribution", "--out", str(out), "--device", "cpu", *lengths])
    record = json.loads(out.read_text())
    (found,) = record["passes"]
    assert found["case"]["new"] == 48
    assert found["difference"] < 1e-5
    assert min(*found["seconds"].values(), found["generation_seconds"]) > 0
    assert found["faster"] > 1
    assert set(found["seconds"]) == {"one_pass", "prompt_read", "kept", "kept_cached"}
    assert found["faster_prompt_read"] > 1
    assert found["peak_mib"]["kept"] > 2 * found["peak_mib"]["one_pass"] > 0
    assert found["memory"] == found["peak_mib"]["one_pass"] / found["peak_mib"]["kept"]
    assert "kept graph" in capsys.readouterr().out


def test_what_cannot_be_measured():
    with pytest.raises(ConfigError, match="rounds is"):
        bench.bench_attribution(rounds=0)
    with pytest.raises(ConfigError, match="new is"):
        bench.bench_attribution(new=())
