"""A `.wandb` file made by hand and read back, also where it was cut off."""

import json
import struct
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

from framework.testing.servers.wandb_files import read_wandb_file, read_wandb_files

BLOCK = 32 * 1024


def records() -> list[Record]:
    run = Record()
    run.run.run_id = "abc"
    item = run.run.config.update.add()
    item.key, item.value_json = "lr", "0.1"
    row = Record()
    for key, value in (("loss", 2.0), ("text", "x" * 40_000)):
        item = row.history.item.add()
        item.key, item.value_json = key, json.dumps(value)
    axis = Record()
    axis.metric.name, axis.metric.step_metric = "loss", "step"
    end = Record()
    end.exit.exit_code = 0
    return [run, row, axis, end]


def written(messages: list[Record]) -> bytes:
    """Leveldb's log: a record is cut at the borders of blocks, and a rest too short for a header is left empty."""
    data = bytearray(b":W&B\x00\x00\x00")
    for message in messages:
        body, first = message.SerializeToString(), True
        while True:
            left = BLOCK - len(data) % BLOCK
            if left < 7:
                data += bytes(left)
                continue
            part, body = body[: left - 7], body[left - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not body]
            data += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
            if not body:
                break
    return bytes(data)


def test_a_file_by_hand_over_several_blocks(tmp_path: Path):
    folder = tmp_path / "wandb" / "offline-run-1"
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").write_bytes(written(records()))
    [found] = read_wandb_files(tmp_path)
    assert (found.run_id, found.config, found.axes, found.complete) == ("abc", {"lr": 0.1}, {"loss": "step"}, True)
    [row] = found.history
    assert row == {"loss": 2.0, "text": "x" * 40_000}


def test_a_file_that_was_cut_off_is_read_up_to_there(tmp_path: Path):
    whole = written(records())
    (tmp_path / "cut.wandb").write_bytes(whole[:-1])
    found = read_wandb_file(tmp_path / "cut.wandb")
    assert (len(found.history), found.complete) == (1, False)
    (tmp_path / "cut.wandb").write_bytes(whole[:BLOCK])
    assert read_wandb_file(tmp_path / "cut.wandb").history == []
