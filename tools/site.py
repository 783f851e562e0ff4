"""Hooks of `mkdocs build` (`make docs`): files outside of `docs/` as pages, decisions in the navigation, links."""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "launch/README.md": "launch.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the site by the files, outside of `docs/`, that they are made from."""
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists every decision in the navigation, in place of the entry `decisions/`; leaves out a line for each module."""
    logging.getLogger("mkdocs.plugins.api-autonav").setLevel(logging.WARNING)
    decisions = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    config.nav = _replaced(config.nav, "decisions/", [f"decisions/{name}" for name in decisions])
    return config


def _replaced(node: object, entry: str, pages: list[str]) -> object:
    """The navigation with `pages` in place of `entry`."""
    if isinstance(node, list):
        return [_replaced(child, entry, pages) for child in node]
    if isinstance(node, dict):
        return {title: _replaced(child, entry, pages) for title, child in node.items()}
    return pages if node == entry else node


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made from files outside of `docs/`."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links between pages.

    A link to a file that is not on the site, such as a recipe, becomes its text.

    Args:
        markdown: text of the page.
        page: where the text stands.
        config: of the site.
        files: all pages.
    """
    sources = {page: source for source, page in PAGES.items()}
    here = page.file.src_uri
    folder = posixpath.dirname(sources.get(here, f"docs/{here}"))
    of_the_api = here not in sources and not (ROOT / "docs" / here).exists()

    def replaced(match: re.Match[str]) -> str:
        text, link, anchor = match.groups()
        target = posixpath.normpath(posixpath.join(folder, link))
        if target == "docs/decisions":
            target = f"docs/{min(file.src_uri for file in files if file.src_uri.startswith('decisions/'))}"
        uri = PAGES.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(uri) is None and (ROOT / target).exists():
            return text
        return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{anchor or ''})"

    return markdown if of_the_api else LINK.sub(replaced, markdown)
