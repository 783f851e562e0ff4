"""Every command, option, module and file that the documents name exists."""

import re
import shlex
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from framework.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")),
    # docs/extending.md makes its own modules and commands; its test runs them.
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "extending.md"),
]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
WITH_RECIPES = ("fit", "validate", "plan", "where")
"""Their options are those of Lightning, of the model and of the data of a recipe."""


@cache
def help_of(*command: str) -> str:
    """What `framework COMMAND --help` prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100000")
        printed: list[str] = []
        patch.setattr("sys.stdout.write", lambda text: printed.append(text) or len(text))
        with suppress(SystemExit):
            main([*command, "--help"])
    return "".join(printed)


@cache
def commands() -> tuple[str, ...]:
    return tuple(re.findall(r"^  ([a-z][\w-]*) +\w", help_of(), re.MULTILINE))


@cache
def subcommands(command: str) -> tuple[str, ...]:
    """Commands of a group; none of a command that is a function."""
    if command in WITH_RECIPES:
        return ()
    listed = re.search(r"\{([\w,-]+)\} *\.\.\.", " ".join(help_of(command).partition("options:")[0].split()))
    return tuple(listed.group(1).split(",")) if listed else ()


def command_lines(text: str) -> list[str]:
    """Calls of `framework` in a document's code."""
    blocks = re.findall(r"^```\w*\n(.*?)^```|^# (.*?)$", text, re.MULTILINE | re.DOTALL)
    code = "\n".join(block for block, _ in blocks) if "```" in text else ""
    spans = [
        " ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    ]
    lines = code.replace("\\\n", " ").splitlines() + spans
    return [call for line in lines for call in re.findall(r"(?:^|/|\s|-m )framework(?:\.cli\.main)? ([a-z].*)", line)]


def names_of(line: str) -> tuple[list[str], list[str]]:
    """Words up to the first option, and the options' names."""
    line = re.split(r" (?:#|\||&&|; )", line)[0].rstrip(";")
    words = shlex.split(line.replace("...", " ").replace("|", " "))
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    return words, options


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.slow
def test_the_readme_lists_the_commands():
    table = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("\nMore:")[0]
    listed = {}
    for names in re.findall(r"^\| (`framework [^|]*`) \|", table, re.MULTILINE):
        first, *others = re.findall(r"`(?:framework )?([^`]+)`", names)
        command, *sub = first.split()
        listed[command] = {*sub, *others}
    assert listed == {command: set(subcommands(command)) for command in commands()}


@pytest.mark.parametrize("page", [*PAGES, *RECIPES], ids=page_name)
def test_commands_and_options_exist(page):
    for line in command_lines(page.read_text()):
        (command, *words), options = names_of(line)
        if command not in commands():
            # A sentence that begins with the package's name.
            assert not options, f"{command}: {line}"
            continue
        sub = subcommands(command)
        if sub and not words:
            continue
        assert not sub or words[0].rstrip(",") in sub, line
        if command in WITH_RECIPES:
            continue
        text = help_of(command, words[0].rstrip(",")) if sub else help_of(command)
        for option in options:
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{option} in: {line}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_modules_and_files_exist(page):
    text = page.read_text()
    for name in re.findall(r"\b(framework(?:\.\w+)+)", text.replace("framework.sif", "")):
        assert _found(name), name
    folders = "|".join(("framework", "tests", "recipes", "launch", "docker", "docs", "tools"))
    for name in re.findall(rf"`((?:{folders})/[\w./*-]+)`", text):
        assert list(ROOT.glob(name.rstrip("/"))), name


def _found(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        stem = ROOT.joinpath(*parts[:length])
        if stem.with_suffix(".py").is_file() or stem.is_dir():
            rest = parts[length:]
            return not rest or hasattr(import_module(".".join(parts[:length])), rest[0])
    return False


def test_the_layout_in_the_readme():
    block = (ROOT / "README.md").read_text().partition("The layout:")[2].split("```")[1]
    named = re.findall(r"^  ([\w.]+)/? ", block, re.MULTILINE)
    package = {path.name for path in (ROOT / "framework").iterdir() if path.name not in ("__pycache__", "__init__.py")}
    assert set(named) == package - {"py.typed"}
    for name in re.findall(r"(?<![\w/])(\w+)/(?= )", block):
        assert (ROOT / name).is_dir() or (ROOT / "framework" / name).is_dir(), name


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "decisions").glob("*.md")), ids=page_name)
def test_a_decision_has_its_status_and_date(page):
    number, title, status = re.match(r"# (\d{3}): (.+)\n\n(.+)\n", page.read_text()).groups()
    assert page.name.startswith(number)
    assert re.fullmatch(r"Status: (accepted|superseded by \d{3})[.,].*\b\d{4}-\d\d-\d\d\b.*", status), title


def test_the_release_in_the_changelog_is_the_version():
    import framework

    newest = re.search(
        r"^## \[?(\d+\.\d+\.\d+)\]? - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert newest.group(1) == framework.__version__


def test_the_recipes_are_listed():
    listed = re.findall(
        r"`([\w/]*\w)(\.yaml)?`",
        (ROOT / "docs/recipes.md").read_text().partition("## Recipes")[2].partition("\n## ")[0],
    )
    names = {name.rpartition("/")[2] for name, _ in listed}
    for recipe in ROOT.glob("recipes/*/*.yaml"):
        # Sizes of one model are listed by their endings: `imagenet256_s.yaml`, `_b`, `_l`.
        assert recipe.stem in names or recipe.stem[-2:] in names, recipe


def test_the_folders_of_the_architecture():
    """Whatever is drawn in a folder is a module or a folder of it."""
    block = (ROOT / "docs" / "architecture.md").read_text().partition("## Folders")[2].split("```")[1]
    folder, text = "", {}
    for line in block.splitlines()[2:-1]:
        inner = re.match(r"( {2}| {4})(\w+)/ +(.*)", line)
        if inner:
            outer = "gbc/" if len(inner.group(1)) == 4 else ""
            folder = outer + inner.group(2)
            text[folder] = inner.group(3)
        elif folder:
            text[folder] += " " + line.strip()
    assert {"core", "gbc", "gbc/graph", "pra"} <= text.keys()
    for folder, words in text.items():
        there = {path.stem for path in (ROOT / "framework" / folder).rglob("*")}
        plain = re.sub(r"\([^)]*\)", "", words).partition(":")[2 if ":" in words else 0]
        named = {word.strip(" ./") for word in re.split(r"[,;]", plain) if re.fullmatch(r" ?[\w/]+ ?\.?", word)}
        assert named - {"..."} <= there, folder
