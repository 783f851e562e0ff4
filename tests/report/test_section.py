"""The sections of a page: those of a method come first, and what they show is not shown again."""

import re
from pathlib import Path

import pytest
from markupsafe import Markup

from framework.core.method import Method
from framework.report import page
from framework.report.run_summary import read_run
from framework.report.section import Section
from framework.testing.run_folders import make_run_folder


def test_a_methods_sections_come_first_with_their_style_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run_folder(tmp_path / "run")
    style = Markup(".mine > b { color: red; }")
    shown = frozenset({"loss/total", "validation/total", "loss/flow_mse"})
    mine = [
        Section(title="Mine <&>", body=Markup("<b>bold</b>"), style=style, metrics=shown),
        Section(title="Also mine", body=Markup("<i>i</i>"), style=style),
    ]
    monkeypatch.setattr(page, "import_object", {"mine:sections": lambda *_: mine}.__getitem__)
    method = Method(name="mine", description="", report="mine:sections")
    text = page.page(read_run(run), [method])
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        *("Mine &lt;&amp;&gt;", "Also mine", "Speed and memory", "Optimizer and guards", "Samples over time", "Starts"),
        *("Environment of the last start", "Recipe"),
    ]
    assert "<b>bold</b>" in text
    assert text.count(style) == 1
