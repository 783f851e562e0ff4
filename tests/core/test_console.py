"""What is told goes to stderr, so that results on stdout can be piped; names are shown as they are."""

import io
import re
import sys
import time

import pytest
from rich.table import Table
from rich.text import Text

from framework.core import console as module
from framework.core.console import LiteralConsole, console, escape_unencodable, results, tracked, visible, working

NAMES = ["[pad]", "b[/c]d", ":cat:", "[bold]x[/bold]", "[link=file:x]", "\\[a]", "http://x", "'a' 1.5 None"]


def test_messages_are_whole_lines_on_stderr(capsys: pytest.CaptureFixture[str]):
    line = "a long message " * 20
    console.print(line)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{line}\n"


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]):
    console.print(f"run {name}", style="yellow")
    assert capsys.readouterr().err == f"run {name}\n"
    # Whatever a caller asks for.
    console.print(name, markup=True, emoji=True)
    assert capsys.readouterr().err == f"{name}\n"
    table = Table(name, title=name, caption=name)
    table.add_row(name)
    results().print(table, Text("our word", style="red"), name)
    assert capsys.readouterr().out.count(name) == 5


def test_what_is_no_sign_is_escaped(capsys: pytest.CaptureFixture[str]):
    console.print("a\x1b[31mb\rc\td\n\udce9\ud83d\u202ee\u200f\u200b\ufeff")
    assert capsys.readouterr().err == "a\\x1b[31mb\\rc\\td\\n\\udce9\\ud83d\\u202ee\\u200f\\u200b\\ufeff\n"
    # With the joiners of emoji and of scripts.
    for name in ("née 日本 \U0001f600", "\U0001f468\u200d\U0001f469", "می\u200cخواهم", "שלום"):
        assert visible(name) == name
    table = Table("name", "state")
    table.add_row("new\nline", "ok")
    results().print(table)
    assert "new\\nline" in capsys.readouterr().out


def test_long_names_are_not_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    name = "x" * 150
    table = Table("name")
    table.add_row(name)
    # Not a terminal; processes of the test runner have its width.
    monkeypatch.delenv("COLUMNS", raising=False)
    results().print(table)
    assert name in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "60")
    results().print(table)
    shown = capsys.readouterr().out
    assert shown.count("x") == 150
    assert "…" not in shown
    results(soft_wrap=True).print(name)
    assert capsys.readouterr().out == f"{name}\n"
    assert results(min_width=150).width == 150


def test_a_name_that_stdout_cannot_encode(monkeypatch: pytest.MonkeyPatch):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stdout)
    escape_unencodable()
    print("é \u2192 \udce9")
    stdout.flush()
    assert stdout.buffer.getvalue() == b"\xe9 \\u2192 \\udce9\n"


def test_work_without_a_terminal_gives_signs_of_life(capsys: pytest.CaptureFixture[str], monkeypatch):
    assert list(tracked(range(3), "[work]")) == [0, 1, 2]
    with working("more"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.02)
    # Also while the first item is being worked on.
    for item in tracked((number for number in range(3)), "[work]", total=3):
        if item != 1:
            time.sleep(0.1)
    with working("[more]"):
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[work]: 0 of 3 after 0 s"
    assert "[work]: 2 of 3 after 0 s" in lines
    assert lines[-1] == "[more]: 0 s so far"
    # Ever more seldom: after 0.02, 0.06 and 0.14 seconds, and so on.
    assert len(lines) < 10


def test_images_a_second(capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.02)
    for batch in tracked([range(4), range(4, 6)], "[rollouts]", total=6, images=len):
        if batch.start:
            time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    # Told while the second batch is made, and at the end.
    assert any(re.fullmatch(r"\[rollouts\]: 4 of 6 after \d+ s, [\d.,]+ images/s", line) for line in lines)
    assert re.fullmatch(r"\[rollouts\]: 6 images in [\d.]+ s, [\d.,]+ images/s", lines[-1])
    # Nothing to do, nothing said; and a loop that was left early does not claim to be at its end.
    assert list(tracked([], "none", total=0, images=len)) == []
    for _ in tracked([range(4), range(4, 6)], "left", images=len):
        break
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [40, 60, 120])
def test_bars_fit_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch):
    out = io.StringIO()
    terminal = LiteralConsole(width=width)
    terminal.file, terminal.is_interactive, terminal._force_terminal = out, True, True
    monkeypatch.setattr(module, "console", terminal)
    name = "images of /a/very/long/path/[pad]/with\x1b/" + "x" * 100
    for _ in tracked(range(2), name):
        pass
    for _ in tracked(iter(range(2)), "rows", bar=False):
        pass
    with working(name):
        pass
    monkeypatch.setattr(module._Pace, "rate", lambda pace: "39.3 images/s")
    for _ in tracked([range(25_000), range(25_000, 50_000)], name, total=50_000, images=len):
        pass
    # Without the terminal's own signs.
    lines = [re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", line) for line in re.split("[\r\n]", out.getvalue())]
    assert any("2/2" in line for line in lines)
    assert any("images of" in line and "…" in line for line in lines)
    assert max(len(line) for line in lines if "50,000 images in" not in line) <= width
    assert any("50000/50000" in line and "39.3 images/s" in line for line in lines)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.01)
    terminal, out = LiteralConsole(), io.StringIO()
    terminal.file, terminal.is_interactive, terminal._force_terminal = out, False, True
    monkeypatch.setattr(module, "console", terminal)
    for _ in tracked(range(1), "work"):
        time.sleep(0.05)
    assert out.getvalue().startswith("work: 0 of 1 after 0 s\n")


def test_an_error_in_the_work_comes_out():
    with pytest.raises(ValueError, match="broken"), working("work"):
        raise ValueError("broken")
