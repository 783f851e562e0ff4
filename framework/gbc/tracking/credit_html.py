"""Texts whose tokens are coloured by credit, as pieces of HTML: for reports and for W&B alike."""

from collections.abc import Sequence
from html import escape as escape_html

from framework.gbc.tracking.episode_records import BlameOfStep, Episode

STYLE = """
.episode { --hot: 211, 47, 47; }
.episode h3 { font-size: 0.95rem; margin: 0 0 6px; overflow-wrap: anywhere; }
.episode .wrong { border-left: 3px solid rgb(var(--hot)); padding: 2px 12px; margin: 0 0 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.episode .way { opacity: 0.75; font-size: 0.82rem; margin: 0 0 10px; overflow-wrap: anywhere; }
.said { display: grid; grid-template-columns: minmax(70px, 11rem) minmax(0, 1fr); gap: 4px 14px; }
.said dt { font-size: 0.82rem; overflow-wrap: anywhere; }
.said dt i { display: block; font-style: normal; opacity: 0.7; }
.said dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; min-height: 1.4em;
  font: 0.82rem/1.55 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.said span { background: rgba(var(--hot), var(--c)); border-radius: 2px; }
@media (max-width: 600px) { .said { grid-template-columns: minmax(0, 1fr); } }
"""
"""What the pieces look like."""

_FAINTEST = 0.02
"""Of the largest credit: what has less is not coloured, and makes no HTML."""
_STRONGEST = 0.75


def credit_html(
    text: str,
    spans: Sequence[tuple[int, int]],
    credits: Sequence[float],
    *,
    largest: float,
    faintest: float = _FAINTEST,
) -> str:
    """A text with a `<span>` around each part; its background's strength is `--c`.

    Args:
        text: it.
        spans: start and end of the parts, in order.
        credits: of each part.
        largest: credit with the strongest colour; more than 0.
        faintest: share of it from which on a part is coloured.
    """
    parts, place = [], 0
    for (start, stop), credit in zip(spans, credits, strict=True):
        strength = min(1.0, abs(credit) / largest)
        if start == stop or strength < faintest:
            continue
        parts.append(escape(text[place:start]))
        parts.append(
            f'<span style="--c:{_STRONGEST * strength:.2f}" title="{credit:.3g}">{escape(text[start:stop])}</span>'
        )
        place = stop
    return "".join([*parts, escape(text[place:])])


def episode_html(episode: Episode) -> str:
    """An episode as one element: what was wrong, the strongest way, and every text with its tokens."""
    largest = max((abs(credit) for text in episode.texts for credit in text.credits), default=0.0) or 1.0
    own = sorted(((name, credit) for name, credit in episode.own.items() if credit), key=lambda item: -item[1])
    blamed = ", ".join(f"{escape(name)} {credit:.3g}" for name, credit in own[:3])
    texts = "".join(
        f"<dt>{escape(text.name)}<i>{text.credit:.3g}</i></dt>"
        f"<dd>{credit_html(text.text, text.spans, text.credits, largest=largest)}</dd>"
        for text in episode.texts
    )
    rest = f'<p class="way">{episode.left_out} texts with less credit are left out.</p>' if episode.left_out else ""
    return (
        f'<article class="episode"><h3>Task {escape(episode.id)}, loss {episode.loss:.4g}</h3>'
        f'<p class="wrong">{escape(episode.loss_text) or "nothing was said about it"}</p>'
        f'<p class="way">{" ← ".join(map(escape, episode.walk))}'
        f"{'; the credit ends at ' + blamed if blamed else ''}</p>"
        f'<dl class="said">{texts}</dl>{rest}</article>'
    )


def episodes_page(blame: BlameOfStep) -> str:
    """The worst episodes of a step as a page of their own, that needs nothing else."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<style>body { font: 15px/1.5 system-ui, sans-serif; color: #1d1f23; background: #fff; margin: 1rem; }"
        f".episode {{ margin: 0 0 2rem; }}{STYLE}</style></head><body>"
        f"<p>{heading(blame)} The redder a token, the more of the loss passes through it.</p>"
        f"{''.join(map(episode_html, blame.episodes))}</body></html>\n"
    )


def heading(blame: BlameOfStep) -> str:
    """What is shown, in words."""
    one = blame.errors == 1
    return f"Step {blame.step:,}: {blame.errors:,} task{'' if one else 's'} with errors, mean loss {blame.loss:.4g}."


def escape(text: str) -> str:
    """Text for a page; NUL has no place in one, nor have halves of characters."""
    return escape_html(text.replace("\0", "\ufffd").encode("utf-8", errors="replace").decode())
