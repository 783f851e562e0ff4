"""HTML by Jinja2 templates beside the code: every value is escaped, what is not a character of a page is replaced."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from framework.report.formatting import duration, moment, short
from framework.tracking.secrets import scrubbed_text


def printable(value: object) -> object:
    """A text without NUL and halves of characters, which have no place in a page; other values as they are."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return value.replace("\0", "\ufffd").encode("utf-8", errors="replace").decode()


def _scrubbed(value: object) -> object:
    """The same without secrets."""
    return value if not isinstance(value, str) or isinstance(value, Markup) else printable(scrubbed_text(value))


@cache
def environment(package: str, *, scrub: bool = True) -> Environment:
    """The templates in the folder of a package.

    Args:
        package: its dotted name.
        scrub: whether secrets are removed from every text that a template shows.
    """
    made = Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_scrubbed if scrub else printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"short": short, "moment": moment, "duration": duration}
    return made


def macros(package: str, template: str, *, scrub: bool = True) -> Any:
    """The macros of a template as functions that return `Markup`.

    Args:
        package: dotted name of the package in whose folder it is.
        template: its file.
        scrub: whether secrets are removed from every text that it shows.
    """
    return environment(package, scrub=scrub).get_template(template).module
