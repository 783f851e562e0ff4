"""The same files as a folder, a zip, a tar and a tar.gz."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

ContainerKind = Literal["folder", "zip", "tar", "tar.gz"]
CONTAINER_KINDS: tuple[ContainerKind, ...] = ("folder", "zip", "tar", "tar.gz")


def make_container(root: Path, files: Mapping[str, bytes], kind: ContainerKind, *, prefix: str = "") -> Path:
    """Writes files, and folders where a path ends with a slash, as `root/source` with the kind's suffix.

    Args:
        root: an existing folder.
        files: contents by path.
        kind: what they are put into.
        prefix: written before every path, such as `./`.
    """
    path = root / ("source" if kind == "folder" else f"source.{kind}")
    if kind == "folder":
        path.mkdir()
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                (path / name).mkdir(exist_ok=True)
            else:
                (path / name).write_bytes(data)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(prefix + name, data)
    else:
        with tarfile.open(path, "w" if kind == "tar" else "w:gz") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(prefix + name.rstrip("/"))
                member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                member.size = len(data) if member.isreg() else 0
                archive.addfile(member, io.BytesIO(data))
    return path
