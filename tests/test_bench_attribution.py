"""The benchmark of attribution on a model that is smaller still."""

import json

import pytest
import torch

from framework import bench_attribution as bench
from framework.cli import main
from framework.errors import ConfigError

SETTINGS = {**bench.SETTINGS["small"], "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}


def test_every_number_is_measured(tmp_path, monkeypatch, capsys):
    # Memory is measured in processes of their own, on the shape as it is.
    monkeypatch.setitem(bench.SETTINGS, "small", SETTINGS)
    out = tmp_path / "bench.json"
    lengths = ["--prompt", "8", "--read", "64", "--new", "[48]", "--batch_size", "2", "--rounds", "2"]
    main(["bench", "attribution", "--out", str(out), "--device", "cpu", *lengths])
    record = json.loads(out.read_text())
    (found,) = record["passes"]
    assert found["case"]["new"] == 48
    assert found["difference"] < 1e-5
    assert min(*found["seconds"].values(), found["generation_seconds"]) > 0
    assert found["faster"] > 1
    assert found["peak_mib"]["kept"] > 2 * found["peak_mib"]["one_pass"] > 0
    assert found["memory"] == found["peak_mib"]["one_pass"] / found["peak_mib"]["kept"]
    assert [each["case"]["scalar"] for each in record["episodes"]] == ["sum_squares", "finegrained"]
    assert "kept graph" in capsys.readouterr().out


def test_rows_share_a_prompt_and_nothing_else():
    case = bench.Case(shape="small", device="cpu", prompt=9, read=7, new=5, scalar="sum_squares")
    first, again, other = case.row(0), case.row(0), case.row(1)
    assert first == again
    assert first.input_ids[:9] == other.input_ids[:9]
    assert first.input_ids[9:] != other.input_ids[9:]
    assert (first.prefix, len(first.input_ids), len(first.output_ids)) == (9, 16, 5)


@pytest.mark.parametrize("shape", ["qwen3-0.6b", "qwen3-4b"])
def test_the_shapes_are_those_of_the_published_models(shape):
    model = bench.build_model(shape, "meta")
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx({"qwen3-0.6b": 596, "qwen3-4b": 4022}[shape], abs=1)
    assert model.dtype == torch.bfloat16


def test_what_cannot_be_measured():
    with pytest.raises(ConfigError, match="rounds is"):
        bench.bench_attribution(rounds=0)
    with pytest.raises(ConfigError, match="new is"):
        bench.bench_attribution(new=())
    with pytest.raises(ConfigError, match="device 'cdua' cannot be used"):
        bench.build_model("small", "cdua")
