"""Archives from anywhere: nothing unsafe, nothing lost at the end."""

import io
import tarfile
from pathlib import Path

import pytest

from framework.data.archives.tar import UNREADABLE, Member, member_name, part_of, walk_tar
from framework.testing.tars import write_tar


def names(path: Path, **options) -> list[str]:
    with path.open("rb") as stream:
        return [member.name for member in walk_tar(stream, **options)]


def header(name: str, kind: bytes = tarfile.REGTYPE, **values) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in values.items():
        setattr(info, key, value)
    return info


def test_members_are_where_they_are_said_to_be(tmp_path: Path):
    long = "folder/" + "x" * 200 + ".txt"
    path = write_tar(
        tmp_path / "a.tar", [("./a.txt", b"one"), (header("d", tarfile.DIRTYPE), b""), (long, b"three" * 300)]
    )
    data = path.read_bytes()
    with path.open("rb") as stream:
        members = list(walk_tar(stream))
        assert [data[each.offset : each.offset + each.size] for each in members] == [b"one", b"three" * 300]
        assert [each.name for each in members] == ["a.txt", long]
    assert member_name(data[members[0].offset - 512 : members[0].offset]) == "./a.txt"


def test_archive_in_an_archive(tmp_path: Path):
    inner = write_tar(tmp_path / "inner.tar", [("x.jpg", b"image")]).read_bytes()
    outer = write_tar(tmp_path / "outer.tar", [("first.txt", b"1"), ("inner.tar", inner)])
    with outer.open("rb") as stream:
        *_, tar = walk_tar(stream)
        (member,) = walk_tar(part_of(stream, offset=tar.offset, size=tar.size))
        assert member == Member(name="x.jpg", offset=member.offset, size=5)
        stream.seek(tar.offset + member.offset)
        assert stream.read(5) == b"image"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../x.jpg", r"'../x.jpg' points outside"),
        ("a/../../x.jpg", "points outside"),
        ("/etc/passwd", "'/etc/passwd' points outside"),
        (header("x.jpg", tarfile.SYMTYPE, linkname="/etc/passwd"), r"'x.jpg' is a link to '/etc/passwd'"),
        (header("x.jpg", tarfile.LNKTYPE, linkname="a.jpg"), r"'x.jpg' is a link to 'a.jpg'"),
        (header("x.jpg", tarfile.CHRTYPE), "'x.jpg' is a device"),
        (header("x.jpg", tarfile.FIFOTYPE), "'x.jpg' is a device"),
        ("a.jpg", "two members are named 'a.jpg'"),
        ("./a.jpg", "two members are named 'a.jpg'"),
        (header("x.jpg", size=2**50), r"'x.jpg' has 1,125,899,906,842,624 bytes, more than 268,435,456"),
    ],
)
def test_what_is_unsafe_is_refused(tmp_path: Path, member, message):
    entries = [("a.jpg", b"1"), (member, b"")]
    if isinstance(member, tarfile.TarInfo) and member.size:
        path = write_tar(tmp_path / "a.tar", entries[:1])
        data = path.read_bytes()
        path.write_bytes(data[:1024] + member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    else:
        path = write_tar(tmp_path / "a.tar", entries)
    with pytest.raises(UNREADABLE, match=message):
        names(path)


def test_bound_is_an_option(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("x.jpg", b"12345")])
    assert names(path, max_member_bytes=5) == ["x.jpg"]
    with pytest.raises(ValueError, match="has 5 bytes, more than 4"):
        names(path, max_member_bytes=4)


def test_no_cut_goes_unseen(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"1" * 700), ("b.jpg", b"2" * 100)])
    data = path.read_bytes()
    end = 512 + 1024 + 512 + 512
    for size in [*range(0, end + 512, 64), 1, 511, end - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(UNREADABLE):
            names(path)
    path.write_bytes(data[: end + 512])
    assert names(path) == ["a.jpg", "b.jpg"]


def test_no_flipped_bit_in_a_header_goes_unseen(tmp_path: Path):
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("b.jpg", b"2")])
    data = path.read_bytes()
    # Of the header: its first 345 bytes; what follows the prefix is padding, and in the checksum, too.
    for start in (0, 1024):
        for at in range(start, start + 512, 3):
            damaged = bytearray(data)
            damaged[at] ^= 4
            path.write_bytes(bytes(damaged))
            try:
                found = names(path)
            except UNREADABLE:
                continue
            # The checksum's own field has characters that don't count.
            assert found == ["a.jpg", "b.jpg"]
            assert start + 148 <= at < start + 156


def test_archives_one_after_the_other(tmp_path: Path):
    data = write_tar(tmp_path / "a.tar", [("a.jpg", b"1")]).read_bytes()
    (tmp_path / "a.tar").write_bytes(data + data)
    with pytest.raises(ValueError, match="from byte 1,024 on there are neither members nor the end"):
        names(tmp_path / "a.tar")


def test_no_archive():
    for data in (b"", b"no archive at all", b"x" * 5000):
        with pytest.raises(UNREADABLE):
            list(walk_tar(io.BytesIO(data)))
