"""Archives by hand: whatever they are given, in the given order."""

import io
import tarfile
from pathlib import Path

from PIL import Image

from framework.testing.tars import image_bytes, write_tar


def test_members_are_written_as_given(tmp_path: Path):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    path = write_tar(tmp_path / "a.tar", [("b", b"two"), (link, b""), ("../up", b"x"), ("b", b"again")])
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == ["b", "link", "../up", "b"]
        assert members[1].linkname == "/etc/passwd"
        contents = [stream.read() for member in members if member.isreg() and (stream := archive.extractfile(member))]
    assert contents == [b"two", b"x", b"again"]


def test_an_image_of_one_gray():
    with Image.open(io.BytesIO(image_bytes(200, size=3, format="BMP"))) as image:
        assert image.format == "BMP"
        assert image.size == (3, 3)
        assert image.getcolors() == [(9, (200, 200, 200))]
