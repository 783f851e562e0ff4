"""The files of a benchmark of real systems: episodes and verdicts, written as they come, so that a run goes on."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from framework.core.errors import DataError
from framework.core.io import append_lines, atomic_write
from framework.core.serialization import from_json, parse_object, to_json
from framework.core.text_files import numbered_lines
from framework.gbc.environments.realworld.candidates import Verdict
from framework.gbc.environments.realworld.episodes import Failure, FaultySystem
from framework.gbc.environments.realworld.systems import RealSystem
from framework.gbc.graph.trace import Trace
from framework.gbc.graph.verbal_loss import slot_loss

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one candidate said of one episode.

    Attributes:
        candidate: its name.
        faulty: name of the faulty system.
        task: id of the task.
        verdicts: of its variants.
    """

    candidate: str
    faulty: str
    task: str
    verdicts: dict[str, Verdict]

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is about."""
        return self.candidate, self.faulty, self.task


@dataclass(frozen=True, kw_only=True)
class _RecordedFailure:
    trace: Trace
    culprits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _RecordedSystem:
    name: str
    faults: tuple[int, ...]
    failures: tuple[_RecordedFailure, ...]
    successes: tuple[Trace, ...]


def write_episodes(path: Path, faulty: Iterable[FaultySystem]) -> None:
    """Writes faulty systems with their runs, a whole file or none; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as stream:
        for each in faulty:
            record = _RecordedSystem(
                name=each.name,
                faults=tuple(each.system.faults.index(fault) for fault in each.faults),
                failures=tuple(
                    _RecordedFailure(trace=failure.trace, culprits=failure.culprits) for failure in each.failures
                ),
                successes=each.successes,
            )
            stream.write(json.dumps(to_json(record)).encode() + b"\n")


def read_episodes(path: Path, system: RealSystem) -> list[FaultySystem]:
    """The faulty versions of a system, as `write_episodes` wrote them.

    Raises:
        DataError: a line that cannot be read.
    """
    return [_faulty(record, system) for record in _records(path, _RecordedSystem)]


def append_result(path: Path, result: Result) -> None:
    """Adds what a candidate said, so that a run that dies keeps what it has finished."""
    append_lines(path, [json.dumps(to_json(result))])


def read_results(path: Path) -> list[Result]:
    """What candidates said; none where there is no file. What a killed process left in pieces is passed over.

    Raises:
        DataError: a line of something else.
    """
    return list(_records(path, Result, skip_pieces=True)) if path.exists() else []


def _records(path: Path, record: type[RecordT], *, skip_pieces: bool = False) -> Iterator[RecordT]:
    for number, line in numbered_lines(path):
        try:
            content = parse_object(line)
        except ValueError as error:
            if skip_pieces:
                continue
            raise DataError(f"{path}, line {number}: {error}", hint="remove the line, or the file") from None
        try:
            yield from_json(record, content)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}", hint="remove the line, or the file") from None


def _faulty(record: _RecordedSystem, system: RealSystem) -> FaultySystem:
    faults = tuple(system.faults[number] for number in record.faults)
    graph = system.graph
    for fault in faults:
        graph = fault.planted(graph)
    return FaultySystem(
        name=record.name,
        system=system,
        faults=faults,
        graph=graph,
        failures=tuple(
            Failure(trace=each.trace, loss=slot_loss(each.trace), culprits=each.culprits) for each in record.failures
        ),
        successes=record.successes,
    )
