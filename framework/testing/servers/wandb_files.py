"""W&B's offline files read back, for tests: `.wandb` is a log of protobuf records in the format of leveldb's logs."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framework.tracking.wandb_compat import record_class

JSONObject = dict[str, Any]
_HEADER_BYTES = 7
_BLOCK_BYTES = 32 * 1024
_RECORD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(kw_only=True)
class WandbFile:
    """What a `.wandb` file holds.

    Attributes:
        run_id: of the run.
        history: rows as they were logged, values decoded from JSON; of nested values the key is joined by dots.
        config: of the run, as last set.
        axes: each metric's axis, by the metric's name or glob.
        artifacts: (name, type, metadata) of each artifact.
        files: paths of files to be sent.
        complete: the run was finished.
    """

    run_id: str = ""
    history: list[JSONObject] = field(default_factory=list)
    config: JSONObject = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    artifacts: list[tuple[str, str, JSONObject]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    complete: bool = False


def read_wandb_file(path: Path) -> WandbFile:
    """Reads a `.wandb` file up to its end, or to the record that a killed process left in pieces."""
    found = WandbFile()
    for payload in _payloads(path.read_bytes()):
        record = record_class()()
        record.ParseFromString(payload)
        _take(record, found)
    return found


def read_wandb_files(run_dir: Path) -> list[WandbFile]:
    """All `.wandb` files of a run's folder, oldest first."""
    return [read_wandb_file(path) for path in sorted(run_dir.glob("wandb/*run-*/*.wandb"))]


def _take(record: Any, found: WandbFile) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        found.run_id = record.run.run_id
        found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    elif kind == "config":
        for item in record.config.update:
            found.config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    elif kind == "history":
        row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        found.history.append(row)
    elif kind == "metric":
        found.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
    elif kind == "artifact":
        artifact = record.artifact
        found.artifacts.append((artifact.name, artifact.type, json.loads(artifact.metadata or "{}")))
    elif kind == "files":
        found.files += [file.path for file in record.files.files]
    elif kind == "exit":
        found.complete = True


def _payloads(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B", "not a .wandb file"
    place, parts = _HEADER_BYTES, []
    while place + _RECORD.size <= len(data):
        left = _BLOCK_BYTES - place % _BLOCK_BYTES
        if left < _RECORD.size:
            place += left
            continue
        _, length, kind = _RECORD.unpack_from(data, place)
        if kind == 0:
            # Room that was set aside and not written.
            return
        body = data[place + _RECORD.size : place + _RECORD.size + length]
        if len(body) < length:
            return
        place += _RECORD.size + length
        parts = [body] if kind in (_FULL, _FIRST) else [*parts, body]
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
            parts = []
