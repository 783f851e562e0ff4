"""Options of an export, by hand."""

import pytest

from framework.core.errors import ConfigError
from framework.training.export import ExportOptions


def test_the_limit_of_a_file_in_bytes():
    assert ExportOptions().max_shard_bytes is None
    assert ExportOptions(max_shard_gib=2.0).max_shard_bytes == 2_147_483_648
    # 2^30 / 1000 = 1073741.824: a file never takes more than what was asked for.
    assert ExportOptions(max_shard_gib=0.001).max_shard_bytes == 1_073_741


@pytest.mark.parametrize("limit", [0.0, -0.5])
def test_a_limit_that_no_file_keeps_is_refused(limit: float):
    with pytest.raises(ConfigError, match=f"max_shard_gib {limit}: use a positive number"):
        ExportOptions(max_shard_gib=limit)
