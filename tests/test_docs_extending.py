"""Every file, script and command of docs/extending.md, in their order: a method of one folder, and a name in one place.

The page's method is the toy that holds the seam: it trains, goes on, plans, exports, is listed and reported, without a
line of it elsewhere.
"""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from framework.cli.main import main
from framework.cli.registry import methods

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
_ENTRY = re.compile(r'^\[project\.entry-points\."(.+)"\]\n((?:\w+ = ".+"\n)+)', re.MULTILINE)


def blocks() -> Iterator[tuple[str, str, str]]:
    """Language, content and what stands before each block, since the block before."""
    place, page = 0, PAGE.read_text()
    for block in re.finditer(r"```(\w+)\n(.*?)```", page, re.DOTALL):
        yield block[1], block[2], page[place : block.start()]
        place = block.end()


def install(text: str) -> None:
    """What pip leaves of a distribution in the folder of its packages: its name and its entry points."""
    found = _ENTRY.search(text)
    assert found is not None
    folder = Path("class_means-0.1.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: class-means\nVersion: 0.1\n")
    (folder / "entry_points.txt").write_text(f"[{found[1]}]\n{found[2]}".replace('"', ""))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, which modules are imported from.

    They stay imported: a parser of a later test looks at all subclasses of LightningModule.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_the_page_from_zero(folder: Path, capsys: pytest.CaptureFixture[str]):
    told: dict[str, str] = {}
    scripts = 0
    for kind, text, before in blocks():
        named = re.findall(r"`([\w/]+\.(?:py|yaml|toml))`", before)
        file = named[-1] if named and before.rstrip().endswith((":", "`")) else None
        if kind == "sh":
            for line in text.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "framework"
                capsys.readouterr()
                main(arguments)
                captured = capsys.readouterr()
                told[" ".join(arguments[:2])] = captured.out + captured.err
        elif kind == "toml":
            install(text)
        elif file is not None and file.startswith(("class_means/", "class_means.")):
            Path(file).parent.mkdir(exist_ok=True)
            Path(file).write_text(text)
        else:
            script = Path(f"script_{scripts}.py")
            script.write_text(text)
            runpy.run_path(str(script))
            scripts += 1
    assert scripts == 3
    assert "operations per picture" in told["plan --config"]
    assert "[green]yes" not in told["plan --config"]
    assert "yes" in told["plan --config"]
    assert "step 12" in told["fit --config"]
    assert "resuming from" in told["fit --config"]
    assert load_file("means.safetensors")["means"].shape == (10, 1, 8, 8)
    assert re.search(r"means\s+finished\s+12/12\s+0\.\d+\s+[\d.e+]+\s+12\s+2", told["runs ls"]), told["runs ls"]
    page = Path("means.html").read_text()
    assert "<h2>Class means</h2>" in page
    assert "The loss fell from " in page
    assert "training loss" in page
    assert "best validation loss" in page
    assert "pictures per second" in page
    assert len(re.findall(r"^\d: -?0\.\d\d$", told["brightness runs/means"], re.MULTILINE)) == 10
    assert "frechet_distance/coarse_pixels" in Path("coarse.json").read_text()
    assert [method.name for method in methods()][-1] == "class_means"
    main(["--help"])
    listed = capsys.readouterr().out
    assert "class_means: the mean image of each class\n  brightness" in listed


def test_every_file_and_table_that_the_page_names_is_there():
    root = PAGE.parents[1]
    later = {"framework/training/strategies/NAME.py", "framework/class_means"}
    for name in set(re.findall(r"`((?:framework|tests)/[\w/.]+)`", PAGE.read_text())) - later:
        assert (root / name).exists(), name
