"""Files that are whole or not there, and locks that end with their process."""

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from framework.core.errors import CheckpointError, ConfigError, DataError
from framework.core.io import (
    PARTIAL,
    RunLock,
    append_lines,
    atomic_write,
    check_output_folder,
    check_outputs,
    locked_folder,
    sha256_of,
)

HOLD = """
import sys, time
from pathlib import Path
from framework.core.io import RunLock, locked_folder
folder = Path(sys.argv[1])
if sys.argv[2] == "run":
    lock = RunLock(folder)
    print("held", flush=True)
    time.sleep(60)
else:
    with locked_folder(folder):
        print("held", flush=True)
        time.sleep(60)
"""


def test_a_file_appears_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "x"
    path.write_text("before")
    with atomic_write(path) as stream:
        stream.write(b"after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"

    def fail() -> None:
        with atomic_write(path) as stream:
            stream.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "after"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def test_an_error_names_the_file(tmp_path: Path):
    with pytest.raises(OSError, match="No such file") as raised, atomic_write(tmp_path / "missing" / "x"):
        pass
    assert "missing" in str(raised.value.filename)


def test_the_digest(tmp_path: Path):
    data = bytes(range(256)) * 10_000
    (tmp_path / "x").write_bytes(data)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", ["run", "folder"])
def test_another_process_is_kept_out_until_it_dies(tmp_path: Path, kind: str):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), kind], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        if kind == "run":
            with pytest.raises(CheckpointError, match=rf"another job is training in .* \(process {process.pid} on "):
                RunLock(tmp_path)
        else:
            with pytest.raises(DataError, match="another process is writing"), locked_folder(tmp_path):
                pass
            # Nothing of the lock lies in the folder, which others take for a shard set.
            assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if kind == "run":
        RunLock(tmp_path).release()
    else:
        with locked_folder(tmp_path):
            pass


def test_outputs_that_can_be_written_leave_no_trace(tmp_path: Path):
    (tmp_path / "there").write_text("before")
    (tmp_path / f"cut off{PARTIAL}").touch()
    check_outputs(tmp_path / "there", tmp_path / "new" / "one", tmp_path / "cut off", inputs=[tmp_path])
    check_output_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "there").read_text() == "before"
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"there", f"cut off{PARTIAL}", "new", "new/folder"}


def test_processes_that_start_together_look_at_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def removed_by_now(self: Path, mode: str) -> None:
        raise FileExistsError(errno.EEXIST, "File exists", str(self))

    monkeypatch.setattr(Path, "open", removed_by_now)
    check_output_folder(tmp_path / "out")


def test_a_folder_where_a_file_is_to_be_made(tmp_path: Path):
    (tmp_path / f"x{PARTIAL}").mkdir()
    with pytest.raises(ConfigError, match=f"x{PARTIAL} is not a folder|cannot be written"):
        check_outputs(tmp_path / "x")


def test_outputs_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "same").symlink_to(tmp_path / "file")
    (tmp_path / "set" / "deep").mkdir(parents=True)
    (tmp_path / "set" / "manifest.json").touch()
    (tmp_path / "set" / "index.npy").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    for outputs, inputs, words in (
        ([tmp_path / "set" / "index.npy"], [tmp_path / "set"], "index.npy lies inside of what is read: give a place"),
        ([tmp_path / "set" / "new.png"], [tmp_path / "link"], "new.png lies inside of what is read"),
        ([tmp_path / "set" / "new.png"], [tmp_path], "new.png lies inside of what is read"),
        ([tmp_path / "link" / "deep" / "x"], [tmp_path / "set"], "x lies inside of what is read"),
        ([tmp_path], [], "is a folder: give the name of a file"),
        (["."], [], "is a folder: give the name of a file"),
        ([tmp_path / "file" / "x"], [], "(cannot be written|is not a folder)"),
        ([tmp_path / "file" / "x" / "y"], [], "cannot be written"),
        ([tmp_path / ("x" * 300)], [], "cannot be written .File name too long"),
        (["/proc/x"], [], "cannot be written"),
        ([tmp_path / "same"], [tmp_path / "file"], "same is what is read: give another name"),
        ([tmp_path / "x", tmp_path / "y" / ".." / "x"], [], "x is written twice"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_outputs(*outputs, inputs=inputs)
    with pytest.raises(ConfigError, match=r"(cannot be written|is not a folder)"):
        check_output_folder(tmp_path / "file")
    assert (tmp_path / "set" / "index.npy").read_text() == "kept"
    assert list((tmp_path / "set" / "deep").iterdir()) == []


def test_what_is_written_beside_an_output_replaces_nothing_else(tmp_path: Path):
    out, picture = tmp_path / "curves.npz", tmp_path / "curves.png"
    check_outputs(out, beside=[picture])
    picture.write_text("of the run")
    with pytest.raises(ConfigError, match=r"curves.png exists, and would be replaced by what is written beside .*npz"):
        check_outputs(out, beside=[picture])
    # Of an earlier call.
    out.touch()
    check_outputs(out, beside=[picture])
    with pytest.raises(ConfigError, match="x is written twice"):
        check_outputs(tmp_path / "x", beside=[tmp_path / "x"])


def test_half_a_line_is_not_continued(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    append_lines(path, ["a", "b"])
    path.write_text(path.read_text() + "half")
    append_lines(path, ["c"])
    assert path.read_text() == "a\nb\nhalf\nc\n"
