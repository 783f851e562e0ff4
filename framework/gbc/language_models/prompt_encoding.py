"""From a prompt and blocks to the model's input text, with the exact span of every block.

Blocks are found by marks: the chat template renders the messages once as they are and once with a private-use character
at both ends of every block. Where both renderings agree but for the marks, the marks are the blocks' positions,
whatever the template repeats, adds or escapes around them. The tokenizer's offsets then tell which tokens lie there
(`offsets.py`).

White space at the ends of a block belongs to the template around it, since many templates trim it (ours).
"""

from collections.abc import Callable
from dataclasses import dataclass

from framework.core.errors import ConfigError
from framework.gbc.graph.trace import Block, Span
from framework.gbc.language_models.interface import Request

_PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """A model's input.

    Attributes:
        text: the whole input, chat template included.
        ids: its tokens.
        spans: where each token lies in `text`; empty spans for tokens without text.
        blocks: the prompt and the messages in it.
    """

    text: str
    ids: tuple[int, ...]
    spans: tuple[Span, ...]
    blocks: tuple[Block, ...]


Render = Callable[[str, str], str]
"""(system message, user message) to the text that the model reads."""


def render_blocks(render: Render, request: Request) -> tuple[str, tuple[Block, ...]]:
    """The model's input text and the blocks in it; their token spans are (0, 0) yet.

    An empty block lies at the position where it would be.

    Raises:
        ConfigError: a template that drops the prompt or changes the text around blocks.
    """
    texts = [request.prompt, *(piece.text for piece in request.pieces)]
    used = {character for text in texts for character in text}
    free = (chr(code) for codes in _PRIVATE_USE for code in codes if chr(code) not in used)
    pairs = [(next(free), next(free)) for _ in texts]
    marked = [_mark(text, *pair) for text, pair in zip(texts, pairs, strict=True)]
    blocked = [True, *(piece.source is not None for piece in request.pieces)]
    message = "".join(
        marked[index + 1] if piece.source is not None else piece.text for index, piece in enumerate(request.pieces)
    )
    plain, with_marks = render(request.prompt, request.message), render(marked[0], message)
    positions: dict[str, int] = {}
    marks = {mark for pair, block in zip(pairs, blocked, strict=True) if block for mark in pair}
    position = 0
    for character in with_marks:
        if character not in marks:
            position += 1
        elif character in positions:
            raise ConfigError(f"the template shows a block of {request.step!r} twice", hint="use another template")
        else:
            positions[character] = position
    if "".join(character for character in with_marks if character not in marks) != plain:
        raise ConfigError(
            f"the template gives another text around the blocks of {request.step!r} when they change",
            hint="use a template that copies its messages",
        )
    sources = [request.step, *(piece.source for piece in request.pieces)]
    blocks: list[Block] = []
    for index, (source, (opening, closing)) in enumerate(zip(sources, pairs, strict=True)):
        if source is None:
            continue
        kind = "message" if index else "prompt"
        if opening not in positions or closing not in positions:
            what = "prompt (the system message)" if kind == "prompt" else f"output of {source!r}"
            raise ConfigError(
                f"the template drops the {what} of {request.step!r}",
                hint="set system_role to user, or use another template",
            )
        chars = (positions[opening], positions[closing])
        blocks.append(Block(source=source, kind=kind, text=plain[slice(*chars)], chars=chars, tokens=(0, 0)))
    return plain, tuple(sorted(blocks, key=lambda block: block.chars))


def _mark(text: str, opening: str, closing: str) -> str:
    core = text.strip()
    start = text.index(core) if core else 0
    return text[:start] + opening + core + closing + text[start + len(core) :]
