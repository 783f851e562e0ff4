"""What a report is made of."""

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page about a run.

    Attributes:
        title: its heading.
        body: what is below it, as HTML.
        style: style sheet that the body needs besides the page's own; sections that give the same share it.
        metrics: names of the metrics that it shows: the page draws no further charts of them.
    """

    title: str
    body: Markup
    style: Markup | None = None
    metrics: frozenset[str] = frozenset()
