"""Operations of sampling by hand."""

import pytest

from framework.pra.planning.sampling import sampling_flops
from framework.pra.sampling import SamplerConfig
from framework.testing.models import tiny_config


def head_values(width: int, depth: int, target: int) -> int:
    """Weights of a step of a head with a shared modulation that is separate of time: blocks and two projections."""
    return target * width + depth * 2 * width * width + width * target


@pytest.mark.parametrize(("method", "calls"), [("euler", 5), ("heun", 9)])
def test_more_steps_cost_what_the_head_s_blocks_do(method: str, calls: int):
    config = tiny_config(head_modulation="separate")
    one = sampling_flops(config, SamplerConfig(steps=1, method="euler"), 3)
    five = sampling_flops(config, SamplerConfig(steps=5, method=method), 3)
    values = head_values(config.head_width, config.head_depth, config.target_size)
    assert five - one == 2 * 3 * config.num_tokens * (calls - 1) * values


def test_guidance_doubles_all_but_the_decoder():
    config = tiny_config()
    plain, guided = (sampling_flops(config, SamplerConfig(steps=2, guidance=g), 4) for g in (1.0, 2.0))
    assert 1.7 < guided / plain < 2
