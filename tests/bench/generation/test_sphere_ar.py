"""Other public code from a folder: what is not one, and what stands in for its attention."""

from pathlib import Path

import pytest
import torch

from framework.bench.generation.sphere_ar import attention, load_sphere_ar
from framework.core.errors import ConfigError
from framework.testing.models import tiny_config


def test_a_folder_without_the_other_code(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"has no SphereAR/model\.py"):
        load_sphere_ar(tmp_path, tiny_config())


def test_the_other_code_gets_our_sizes(other_code: Path):
    sizes = load_sphere_ar(other_code, tiny_config(depth=3, head_depth=4)).sizes
    assert (sizes["n_layer"], sizes["diff_layers"], sizes["latent_dim"]) == (3, 4, tiny_config().state_size)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_by_its_formula(causal: bool):
    q, k, v = (torch.randn(2, 5, 3, 4) for _ in range(3))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / 2
    if causal:
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    expected = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v)
    torch.testing.assert_close(attention(q, k, v, causal=causal), expected)
