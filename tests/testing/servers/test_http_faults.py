"""Each fault is what it says, once; then all is well."""

from pathlib import Path

import httpx
import pytest

from framework.testing.servers.http_faults import serve_with_faults

CONTENT = bytes(range(64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path


@pytest.mark.parametrize("fault", ["500", "404"])
def test_a_state_comes_once_and_the_file_after_it(folder: Path, fault):
    with serve_with_faults(folder) as server:
        server.faults["file"] = [fault]
        assert httpx.get(f"{server.url}/file").status_code == int(fault)
        assert httpx.get(f"{server.url}/file").content == CONTENT
        assert server.requests["file"] == 2


def test_a_missing_file(folder: Path):
    with serve_with_faults(folder) as server:
        assert httpx.get(f"{server.url}/nothing").status_code == 404


def test_one_bit_is_another(folder: Path):
    with serve_with_faults(folder) as server:
        server.faults["file"] = ["flip"]
        found = httpx.get(f"{server.url}/file").content
    assert [index for index in range(64) if found[index] != CONTENT[index]] == [32]


def test_half_a_file_without_a_length(folder: Path):
    with serve_with_faults(folder) as server:
        server.faults["file"] = ["short"]
        found = httpx.get(f"{server.url}/file")
    assert "content-length" not in found.headers
    assert found.content == CONTENT[:32]


@pytest.mark.slow
def test_a_connection_that_is_dropped_and_one_that_hangs(folder: Path):
    with serve_with_faults(folder) as server:
        server.faults["file"] = ["drop", "hang"]
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{server.url}/file")
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{server.url}/file", timeout=0.2)
        server.release.set()
        assert httpx.get(f"{server.url}/file").content == CONTENT
