"""What the failures of logs are attributed to, kept as it comes: what is cut off goes on where it was."""

import json
from collections.abc import Sequence
from pathlib import Path

from framework.core.errors import ConfigError
from framework.core.io import atomic_write
from framework.core.serialization import JsonDict, parse_object, to_json
from framework.core.text_files import read_json_lines
from framework.gbc.attribution.results import Attribution, attribution_from_json
from framework.gbc.logs.surrogate import ReadLog

FILE = "attributions.jsonl"
SETTINGS = "settings.json"


class LogResults:
    """A folder with a line for each log that is done.

    Args:
        folder: is made.
        settings: what the attributions depend on beside the logs.
        resume: keep what an earlier call with the same settings has done; otherwise it is replaced.

    Raises:
        ConfigError: the folder was begun with other settings.
    """

    def __init__(self, folder: Path, settings: JsonDict, *, resume: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._done: dict[str, Attribution] = {}
        if resume and self._path.exists():
            _check_settings(folder / SETTINGS, settings)
            # The last line may be half of one, where the process was killed.
            found, _ = read_json_lines(self._path, _attribution, skip_bad_lines=True)
            self._done = {each.id: each for each in found}
        with atomic_write(folder / SETTINGS) as stream:
            stream.write(json.dumps(settings, indent=1).encode() + b"\n")
        with atomic_write(self._path) as stream:
            stream.writelines(_line(each).encode() for each in self._done.values())

    def of(self, read: ReadLog) -> Attribution | None:
        """What a log as it was read is attributed to, if an earlier call has found that out."""
        found = self._done.get(read.log.id)
        texts = {step.name: step.output for step in read.trace.steps}
        if found is None or {each.step: each.text for each in found.messages} != texts:
            return None
        return found

    def add(self, found: Attribution) -> None:
        """Keeps what a log is attributed to."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(_line(found))

    def write(self, found: Sequence[Attribution]) -> None:
        """Writes what logs are attributed to, in their order, then what was kept of others."""
        ids = {each.id for each in found}
        others = [each for id, each in self._done.items() if id not in ids]
        with atomic_write(self._path) as stream:
            stream.writelines(_line(each).encode() for each in (*found, *others))


def _check_settings(path: Path, settings: JsonDict) -> None:
    try:
        before = parse_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error})", hint="leave out --resume, or use another --out") from None
    # As JSON has it: tuples are lists there.
    now = parse_object(json.dumps(settings))
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        problem = f"{path.parent} was begun with another {', '.join(changed)}"
        raise ConfigError(problem, hint="leave out --resume, use another --out, or what it was begun with")


def _attribution(line: str, number: int) -> Attribution:
    return attribution_from_json(parse_object(line))


def _line(found: Attribution) -> str:
    return json.dumps(to_json(found)) + "\n"
