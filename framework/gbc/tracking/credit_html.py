"""Texts whose tokens are coloured by credit, as pieces of HTML: for reports and for W&B alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from framework.gbc.tracking.episode_records import BlameOfStep, Episode
from framework.report.templates import environment, macros

_PACKAGE = "framework.gbc.tracking"
_FAINTEST = 0.02
"""Of the largest credit: what has less is not coloured, and makes no HTML."""
_STRONGEST = 0.75
_MOST_BLAMED = 3


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a text.

    Attributes:
        text: it.
        credit: of it; None where it is not coloured.
        strength: of the colour, from 0 to 1.
    """

    text: str
    credit: float | None = None
    strength: float = 0.0


def credit_html(
    text: str,
    spans: Sequence[tuple[int, int]],
    credits: Sequence[float],
    *,
    largest: float,
    faintest: float = _FAINTEST,
) -> Markup:
    """A text with a `<span>` around each part; its background's strength is `--c`.

    Args:
        text: it.
        spans: start and end of the parts, in order.
        credits: of each part.
        largest: credit with the strongest colour; more than 0.
        faintest: share of it from which on a part is coloured.
    """
    pieces = list(_pieces(text, spans, [(credit, min(1.0, abs(credit) / largest)) for credit in credits], faintest))
    return _macros().credited_text(pieces)


def _pieces(
    text: str, spans: Sequence[tuple[int, int]], credits: Sequence[tuple[float, float]], faintest: float
) -> Iterator[Piece]:
    """The parts that are coloured, and what is between them.

    Args:
        text: it.
        spans: start and end of the parts, in order.
        credits: of each part, with its share of the largest.
        faintest: share from which on a part is coloured.
    """
    place = 0
    for (start, stop), (credit, share) in zip(spans, credits, strict=True):
        if start == stop or share < faintest:
            continue
        yield Piece(text=text[place:start])
        yield Piece(text=text[start:stop], credit=credit, strength=_STRONGEST * share)
        place = stop
    yield Piece(text=text[place:])


def episode_html(episode: Episode) -> Markup:
    """An episode as one element: what was wrong, the strongest trajectory, and every text with its tokens."""
    largest = max((abs(credit) for text in episode.texts for credit in text.credits), default=0.0) or 1.0
    own = sorted(((name, credit) for name, credit in episode.own.items() if credit), key=lambda item: -item[1])
    texts = [(each, credit_html(each.text, each.spans, each.credits, largest=largest)) for each in episode.texts]
    return _macros().episode(episode, own[:_MOST_BLAMED], texts)


def episodes_page(blame: BlameOfStep) -> str:
    """The worst episodes of a step as a page of their own, that needs nothing else."""
    return (
        environment(_PACKAGE, scrub=False)
        .get_template("episodes.html.jinja")
        .render(heading=heading(blame), episodes=list(map(episode_html, blame.episodes)))
    )


def credit_style() -> Markup:
    """What the pieces look like, as a style sheet."""
    return Markup(environment(_PACKAGE).get_template("credit.css").render())


def heading(blame: BlameOfStep) -> str:
    """What is shown, in words."""
    one = blame.errors == 1
    return f"Step {blame.step:,}: {blame.errors:,} task{'' if one else 's'} with errors, mean loss {blame.loss:.4g}."


def _macros() -> Any:
    # Secrets are removed from whole episodes, before they are cut into tokens.
    return macros(_PACKAGE, "credit.html.jinja", scrub=False)
