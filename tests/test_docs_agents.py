"""Every file and every command of docs/agents.md, in their order."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from framework.cli.main import main

PAGE = Path(__file__).parents[1] / "docs" / "agents.md"


@pytest.mark.slow
def test_the_page_from_zero(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    commands = 0
    place = 0
    for block in re.finditer(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL):
        kind, text = block.groups()
        before, place = block.string[place : block.start()], block.end()
        if kind == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                program, *arguments = shlex.split(line)
                assert program == "framework"
                main(arguments)
                commands += 1
            continue
        # The file is the last that is named before it.
        name = re.findall(r"`(\w+\.(?:py|yaml|jsonl))`", before)[-1]
        Path(name).write_text(text)
        if name in ("make_model.py", "functions.py", "few_lines.py"):
            runpy.run_path(name)
    assert commands == 8
    for made in ("traces.jsonl", "blame/blame.html", "blame/blame.svg", "blame-prompts/blame.png", "better/graph.yaml"):
        assert Path(made).is_file()
    assert "'loss', 'writer'" in capsys.readouterr().out
