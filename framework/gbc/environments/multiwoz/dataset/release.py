"""The files of a MultiWOZ release as its authors publish it: a folder, or the zip, of 2.1 or 2.4 (one layout)."""

import zipfile
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar, cast

from framework.core.errors import DataError
from framework.core.serialization import JsonDict
from framework.core.text_files import decode_text, half_character_in, parse_json

Split = Literal["train", "validation", "test"]
_PathT = TypeVar("_PathT", Path, PurePosixPath)
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_DATA = "data.json"
_ACTS = ("dialogue_acts.json", "system_acts.json")
_LISTS = {"validation": ("valListFile.json", "valListFile.txt"), "test": ("testListFile.json", "testListFile.txt")}
_TABLES = ("attraction", "hotel", "restaurant", "taxi", "train")
_MAX_BYTES = 512 << 20
"""Of a file: of 10,438 dialogues, indented, `data.json` has some 300 MB, and its parsed form ten times as much."""
# The others are decompressed by Python's zipfile without a bound.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HINT = "give the folder or the zip of MultiWOZ 2.1 or 2.4 as it is published"


@dataclass(frozen=True, kw_only=True)
class Release:
    """What the files hold.

    Attributes:
        dialogues: by id (`PMUL1635.json`), as parsed; each still to be checked.
        acts: the acts of the system's turns by dialogue (`PMUL1635`) and turn ("1", ...), where they are in a file of
            their own; empty where they are in `data.json` or missing.
        lists: the ids of the validation and the test dialogues; the others are for training.
    """

    dialogues: JsonDict
    acts: JsonDict
    lists: dict[str, tuple[str, ...]]

    def splits(self) -> dict[str, Split]:
        """The split of each dialogue."""
        named: dict[str, Split] = dict.fromkeys(self.lists["validation"], "validation")
        named.update((id, "test") for id in self.lists["test"])
        return {id: named.get(id, "train") for id in self.dialogues}

    def missing(self) -> tuple[str, ...]:
        """Ids that the lists name and `data.json` lacks."""
        return tuple(id for ids in self.lists.values() for id in ids if id not in self.dialogues)


def read_release(source: str | Path) -> Release:
    """Reads the dialogues and the lists of a release.

    Args:
        source: a folder or a zip with `data.json`, `valListFile` and `testListFile` (.json or .txt: an id in each line,
            or a JSON list), in it or in one folder inside it.

    Raises:
        DataError: no such file, one that is damaged or not of that form, or a dialogue in both lists.
    """
    with _opened(Path(source)) as read:
        dialogues = _object(read(_DATA), _DATA)
        lists = {split: _ids(names, read) for split, names in _LISTS.items()}
        texts = ((name, read(name)) for name in _ACTS)
        acts = next((_object(text, name) for name, text in texts if text is not None), JsonDict())
    both = sorted(set(lists["validation"]) & set(lists["test"]))
    if both:
        raise DataError(f"{both[0]} is in the lists of validation and of test", hint=_HINT)
    return Release(dialogues=dialogues, acts=acts, lists=lists)


def read_tables(source: str | Path) -> JsonDict:
    """The databases of a release, by domain: a list of objects, of taxi an object of lists.

    Raises:
        DataError: a file is missing or damaged.
    """
    tables: JsonDict = {}
    with _opened(Path(source)) as read:
        for domain in _TABLES:
            name = f"{domain}_db.json"
            text = read(name)
            if text is None:
                hint = "add the *_db.json files of MultiWOZ 2.1, which also serve 2.4"
                raise DataError(f"{source} has no {name}", hint=hint)
            tables[domain] = _parse(text, name)
    return tables


@contextmanager
def _opened(source: Path) -> Generator[Callable[[str], str | None]]:
    """A function from a file's name to its text, None where it is missing. Nothing is unpacked."""
    if source.is_dir():
        folder = _only(
            [path.parent for path in (source, *source.iterdir()) for path in [path / _DATA] if path.is_file()]
        )

        def read(name: str) -> str | None:
            path = folder / name
            if not path.is_file():
                return None
            _refuse_large(path.stat().st_size, str(path))
            return _text(path.read_bytes(), str(path))

        yield read
        return
    try:
        with zipfile.ZipFile(source) as archive:
            members = {info.filename: info for info in archive.infolist()}
            found = [PurePosixPath(name) for name in members if PurePosixPath(name).name == _DATA]
            root = _only([path.parent for path in found if path.parts[0] != "__MACOSX"])

            def read_member(name: str) -> str | None:
                info = members.get(str(root / name))
                if info is None:
                    return None
                _refuse_large(info.file_size, f"{source}/{info.filename}")
                if info.compress_type not in _BOUNDED:
                    problem = f"{source}/{info.filename} is compressed with method {info.compress_type}"
                    raise DataError(problem, hint="pack the zip with deflate")
                return _text(archive.read(info), f"{source}/{info.filename}")

            yield read_member
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror or error})", hint=_HINT) from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        # Damaged, encrypted.
        raise DataError(f"{source} cannot be read as a zip ({error})", hint=_HINT) from None


def _refuse_large(size: int, where: str) -> None:
    if size > _MAX_BYTES:
        raise DataError(f"{where} has {size:,} bytes, more than {_MAX_BYTES:,}", hint=_HINT)


def _only(folders: list[_PathT]) -> _PathT:
    """The one folder with `data.json`."""
    if len(folders) != 1:
        where = ", ".join(sorted(map(str, folders)))
        raise DataError(f"{_DATA} is in {len(folders)} folders{': ' if where else ''}{where}", hint=_HINT)
    return folders[0]


def _text(data: bytes, where: str) -> str:
    try:
        return decode_text(data)
    except ValueError as error:
        raise DataError(f"{where} is {error}", hint=_HINT) from None


def _parse(text: str, where: str) -> Any:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise DataError(f"{where} is {error}", hint=_HINT) from None
    if (found := half_character_in(value)) is not None:
        raise DataError(f"{where} has {found}", hint=_HINT)
    return value


def _object(text: str | None, where: str) -> JsonDict:
    value = _parse(text or "", where)
    if not isinstance(value, dict):
        raise DataError(f"{where} holds no JSON object of dialogues ({type(value).__name__})", hint=_HINT)
    return cast("JsonDict", value)


def _ids(names: tuple[str, ...], read: Callable[[str], str | None]) -> tuple[str, ...]:
    """The ids of a list; an id without `.json` gets it."""
    texts = ((name, read(name)) for name in names)
    name, text = next(((name, text) for name, text in texts if text is not None), (names[0], None))
    if text is None:
        raise DataError(f"there is no {names[0]} beside {_DATA}", hint=_HINT)
    ids = _parse(text, name) if text.lstrip().startswith("[") else text.split()
    if not all(isinstance(id, str) for id in ids):
        raise DataError(f"{name} holds no ids", hint=_HINT)
    return tuple(dict.fromkeys(id if id.endswith(".json") else f"{id}.json" for id in ids))
