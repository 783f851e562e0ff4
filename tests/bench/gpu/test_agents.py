"""Episodes in memory, in batches."""

import pytest

from framework.bench.gpu.agents import Episodes


def test_batches_of_tasks():
    episodes = Episodes([{"id": str(number)} for number in range(5)], 2)
    assert len(episodes) == 2
    assert [task["id"] for task in episodes[1].episodes] == ["2", "3"]
    assert episodes[1].indices.tolist() == [2, 3]
    with pytest.raises(IndexError):
        episodes[2]
