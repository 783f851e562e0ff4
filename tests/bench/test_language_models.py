"""Models and answers that speed is measured on."""

import pytest
import torch

from framework.bench import language_models as bench
from framework.core.errors import ConfigError


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


def test_another_dtype():
    assert bench.build_model("small", "cpu").dtype == torch.float32
    assert bench.build_model("small", "cpu", "bfloat16").dtype == torch.bfloat16


def test_a_device_that_cannot_be_used():
    with pytest.raises(ConfigError, match="device 'cdua' cannot be used"):
        bench.build_model("small", "cdua")
