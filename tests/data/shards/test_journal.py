"""An unfinished set knows what it holds, and forgets it when something else is to be written."""

from dataclasses import dataclass
from pathlib import Path

from framework.core.io import sha256_of
from framework.data.shards.journal import JOURNAL, Journal, digest_of, is_as_noted
from framework.data.shards.manifest import ShardRecord


@dataclass(frozen=True, kw_only=True)
class Facts:
    name: str
    counts: dict[str, int]


MADE_OF = {f"s{number}": f"files {number}" for number in range(4)}


def journal_in(folder: Path, digest: str | None = "one", *, made_of: dict[str, str] = MADE_OF) -> Journal[Facts]:
    return Journal(folder, digest, made_of, Facts)


def noted(folder: Path, digest: str | None = "one", *, made_of: dict[str, str] = MADE_OF) -> dict[str, Facts]:
    return journal_in(folder, digest, made_of=made_of).parts


def test_what_was_noted_is_known_again(tmp_path: Path):
    journal = journal_in(tmp_path)
    journal.begin()
    facts = {f"s{number}": Facts(name=f"\u2028{number}\n", counts={"a": number}) for number in range(3)}
    for name, each in facts.items():
        journal.note(name, each)
    assert noted(tmp_path) == facts
    # What is known is written again, and the rest behind it.
    journal = journal_in(tmp_path)
    journal.begin()
    journal.note("s3", facts["s0"])
    assert list(noted(tmp_path)) == ["s0", "s1", "s2", "s3"]
    assert list(noted(tmp_path, made_of={**MADE_OF, "s1": "other files"})) == ["s0", "s2", "s3"]
    assert list(noted(tmp_path, made_of={"s2": "files 2"})) == ["s2"]
    assert noted(tmp_path, "two") == {}
    assert noted(tmp_path, None) == {}
    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL]


def test_half_a_line_is_passed_over(tmp_path: Path):
    journal = journal_in(tmp_path)
    journal.begin()
    for name in ("s0", "s1"):
        journal.note(name, Facts(name=name, counts={}))
    data = (tmp_path / JOURNAL).read_bytes()
    second = data.rindex(b'{"shard"')
    for size in range(len(data)):
        (tmp_path / JOURNAL).write_bytes(data[:size])
        assert len(noted(tmp_path)) == (0 if size < second - 1 else 1 if size < len(data) - 1 else 2)
    (tmp_path / JOURNAL).write_bytes(b"\xff\xfe")
    assert noted(tmp_path) == {}


def test_a_source_that_is_not_known_again_notes_nothing(tmp_path: Path):
    (tmp_path / JOURNAL).write_text("old")
    journal = journal_in(tmp_path, None)
    journal.begin()
    journal.note("s0", Facts(name="", counts={}))
    assert list(tmp_path.iterdir()) == []


def test_a_shard_is_what_was_noted(tmp_path: Path):
    path = tmp_path / "s0"
    path.write_bytes(b"12345")
    record = ShardRecord(name="s0", num_samples=1, num_bytes=5, sha256=sha256_of(path))
    assert is_as_noted(path, record)
    assert is_as_noted(tmp_path / "none", None)
    path.write_bytes(b"12346")
    assert not is_as_noted(path, record)
    path.unlink()
    assert not is_as_noted(path, record)


def test_digests_tell_values_apart():
    assert digest_of([1, "a"]) == digest_of([1, "a"])
    assert len({digest_of(parts) for parts in ([1, "a"], ["1", "a"], ["1a"], [], ["\udce9"], [("a", 1)])}) == 6
