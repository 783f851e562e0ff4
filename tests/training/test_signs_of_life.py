"""Signs of life over a real store."""

from datetime import timedelta

import pytest
import torch.distributed as dist

from framework.training.signs_of_life import Beat, SignsOfLife


@pytest.fixture
def server() -> dist.TCPStore:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=10))


def sign(server: dist.TCPStore, rank: int, num_ranks: int = 3) -> SignsOfLife:
    store = dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=timedelta(seconds=10))
    return SignsOfLife(dist.PrefixStore("run", store), rank, num_ranks)


def settle(*speakers: SignsOfLife) -> None:
    """Until the store has what they have sent: it answers nothing to that, but one connection's requests in order."""
    for each in speakers:
        each.all_end()


def test_each_rank_reads_all(server: dist.TCPStore):
    first, second, third = (sign(server, rank) for rank in range(3))
    first.send(Beat(number=0, at="forward"))
    third.send(Beat(number=4, at="data wait"))
    settle(first, third)
    assert second.read() == [{"number": 0, "at": "forward"}, None, {"number": 4, "at": "data wait"}]
    second.send(Beat(number=1, at="backward"))
    first.send(Beat(number=1, at="backward"))
    settle(first, second)
    expected = [{"number": 1, "at": "backward"}, {"number": 1, "at": "backward"}, {"number": 4, "at": "data wait"}]
    assert [each.read() for each in (first, second, third)] == [expected] * 3


def test_one_ends_all(server: dist.TCPStore):
    first, second = sign(server, 0), sign(server, 1)
    assert not second.all_end()
    first.end_all()
    settle(first)
    assert second.all_end()
