"""A server of chat completions: the message in capitals, and faults in turn."""

import httpx
import pytest

from framework.testing.servers.model_server import serving

REQUEST = {"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}]}


def test_an_answer_and_what_was_asked():
    with serving() as server:
        answer = httpx.post(f"{server.url}/chat/completions", json=REQUEST).json()
    assert answer == {"choices": [{"message": {"content": "HELLO"}, "finish_reason": "length"}]}
    [(path, _, body)] = server.seen
    assert (path, body) == ("/v1/chat/completions", REQUEST)


@pytest.mark.slow
def test_faults_come_in_turn_and_then_all_is_well():
    with serving("strange", 503, "slow", "well") as server:
        url = f"{server.url}/chat/completions"
        assert httpx.post(url, json=REQUEST).text == "<html>"
        assert httpx.post(url, json=REQUEST).status_code == 503
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=REQUEST, timeout=0.2)
        assert httpx.post(url, json=REQUEST).status_code == 200
        assert httpx.post(url, json=REQUEST).status_code == 200
        assert len(server.seen) == 5
