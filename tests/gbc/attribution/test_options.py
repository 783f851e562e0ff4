"""Options that cannot be used are refused with the value and the way out."""

from typing import Any

import pytest

from framework.core.errors import ConfigError
from framework.core.serialization import from_json, to_json
from framework.gbc.attribution.options import (
    AttributionOptions,
    CounterfactualEditOptions,
    GradientOptions,
)


@pytest.mark.parametrize(
    ("record", "values", "problem"),
    [
        (GradientOptions, {"max_tokens": 0}, "max_tokens 0, gradients_at_once None"),
        (GradientOptions, {"gradients_at_once": 0}, "gradients_at_once 0"),
        (CounterfactualEditOptions, {"max_targets": 0}, "max_targets 0: use 1 or more"),
        (CounterfactualEditOptions, {"keep": -0.5}, "keep -0.5: use 0 or more"),
        (AttributionOptions, {"top_m": 0}, "top_m 0"),
    ],
)
def test_values_out_of_range(record: Any, values: dict[str, Any], problem: str):
    with pytest.raises(ConfigError, match=problem):
        record(**values)


def test_the_defaults_are_those_of_the_paper_with_counterfactual_edits_of_ours():
    options = AttributionOptions()
    assert (options.top_m, options.connections.score, options.connections.reduction) == (1, "l1", "mean")
    assert options.edits == CounterfactualEditOptions()
    assert from_json(AttributionOptions, to_json(options)) == options
