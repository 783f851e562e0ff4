"""The part of W&B's protocol that a run's metrics need, request by request."""

import gzip
import json

import httpx

from framework.testing.servers.wandb_server import serve_wandb


def test_rows_are_kept_by_their_place_and_a_run_goes_on():
    with serve_wandb() as server:
        upsert = {"query": "mutation UpsertBucket(...)", "variables": {"name": "r"}}
        answer = httpx.post(f"{server.url}/graphql", json=upsert).json()
        assert answer["data"]["upsertBucket"]["bucket"]["name"] == "r"
        resume = {"query": "query RunResumeStatus(...)", "variables": {"name": "r"}}
        assert httpx.post(f"{server.url}/graphql", json=resume).json()["data"]["model"]["bucket"] is None
        for offset, row in ((1, {"loss": 1.0}), (0, {"loss": 2.0}), (1, {"loss": 1.5})):
            files = {"wandb-history.jsonl": {"offset": offset, "content": [json.dumps(row)]}}
            httpx.post(f"{server.url}/files/team/framework/r/file_stream", json={"files": files})
        assert server.rows("r") == [{"loss": 2.0}, {"loss": 1.5}]
        bucket = httpx.post(f"{server.url}/graphql", json=resume).json()["data"]["model"]["bucket"]
    assert bucket["historyLineCount"] == 2
    assert json.loads(json.loads(bucket["historyTail"])[0]) == {"loss": 1.5}


def test_a_packed_request_and_one_that_is_unknown():
    with serve_wandb() as server:
        body = gzip.compress(json.dumps({"query": "query Viewer(...)"}).encode())
        answer = httpx.post(f"{server.url}/graphql", content=body, headers={"content-encoding": "gzip"}).json()
        assert answer["data"]["viewer"]["username"] == "user"
        unknown = httpx.post(f"{server.url}/graphql", json={"query": "query Other(...)"}).json()
    assert unknown == {"errors": [{"message": "not here"}]}
    assert [json.loads(body)["query"] for body in server.bodies] == ["query Viewer(...)", "query Other(...)"]
