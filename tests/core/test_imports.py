"""Code by its import path."""

import sys
from pathlib import Path

import pytest

from framework.core.errors import CheckpointError, ConfigError
from framework.core.imports import import_object, look_in_current_folder, look_in_folder


def test_both_spellings():
    assert import_object("framework.core.errors:ConfigError") is ConfigError
    assert import_object("pathlib:Path.joinpath") is Path.joinpath
    assert import_object("framework.core.errors.ConfigError") is ConfigError
    assert import_object("pathlib:Path.joinpath") is Path.joinpath


@pytest.mark.parametrize("path", ["framework.core.errors:Missing", "framework.nowhere:x", "word"])
def test_what_leads_nowhere(path: str):
    with pytest.raises(ConfigError, match=f"'{path}' cannot be imported .*give an import path such as"):
        import_object(path)


def test_modules_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_mine.py").write_text("VALUE = 3\n")
    (tmp_path / "module_that_fails.py").write_text("1 / 0\n")
    text = "from framework.core.errors import CheckpointError\nraise CheckpointError('no file', hint='make one')\n"
    (tmp_path / "module_that_refuses.py").write_text(text)
    look_in_current_folder()
    look_in_current_folder()
    assert sys.path.count(str(tmp_path)) == 1
    assert import_object("module_of_mine:VALUE") == 3
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        import_object("module_that_fails:x")
    with pytest.raises(CheckpointError, match="make one"):
        import_object("module_that_refuses:x")


def test_a_module_of_a_folder_comes_after_all_others(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "json.py").write_text("raise AssertionError")
    (tmp_path / "own_of_this_folder.py").write_text("x = 3")
    look_in_folder(tmp_path)
    look_in_folder(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
    assert import_object("own_of_this_folder.x") == 3
    assert import_object("json.loads")("1") == 1
