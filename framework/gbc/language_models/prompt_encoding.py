"""From a prompt and blocks to token ids, with the exact span of every block.

Blocks are found by marks: the chat template renders the messages once as they are and once with a private-use character
at both ends of every block. Where both renderings agree but for the marks, the marks are the blocks' places, whatever
the template repeats, adds or escapes around them. The tokenizer's offsets then tell which tokens lie there.

White space at the ends of a block belongs to the template around it, since many templates trim it. A token that has
characters of a block and of the template belongs to the block; one that has characters of two blocks belongs to the one
with more of them, and to the earlier where they have as many (ours).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from framework.core.errors import ConfigError
from framework.gbc.graph.trace import Block, Span

_PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE))


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of the user message: literal text, or a block if it has a source."""

    text: str
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an agent asks of a model.

    Attributes:
        step: name of the asking step, for messages.
        prompt: the system message.
        pieces: the user message in order.
        max_new_tokens: bound of the answer, in tokens.
        seed: of the answer's random numbers, where the model samples.
    """

    step: str
    prompt: str
    pieces: tuple[Piece, ...]
    max_new_tokens: int
    seed: int = 0

    @property
    def message(self) -> str:
        """The user message as text."""
        return "".join(piece.text for piece in self.pieces)


Render = Callable[[str, str], str]
"""(system message, user message) to the text that the model reads."""


def render_blocks(render: Render, request: Request) -> tuple[str, tuple[Block, ...]]:
    """The model's input text and the blocks in it; their token spans are (0, 0) yet.

    An empty block lies at the place where it would be.

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
    places: dict[str, int] = {}
    marks = {mark for pair, block in zip(pairs, blocked, strict=True) if block for mark in pair}
    place = 0
    for character in with_marks:
        if character not in marks:
            place += 1
        elif character in places:
            raise ConfigError(f"the template shows a block of {request.step!r} twice", hint="use another template")
        else:
            places[character] = place
    if "".join(character for character in with_marks if character not in marks) != plain:
        raise ConfigError(
            f"the template gives another text around the blocks of {request.step!r} when they change",
            hint="use a template that copies its messages",
        )
    sources = [(request.step, "prompt"), *((piece.source, "message") for piece in request.pieces)]
    blocks = []
    for (source, kind), (opening, closing), block in zip(sources, pairs, blocked, strict=True):
        if not block:
            continue
        if opening not in places or closing not in places:
            what = "prompt (the system message)" if kind == "prompt" else f"output of {source!r}"
            raise ConfigError(
                f"the template drops the {what} of {request.step!r}",
                hint="set system_role to user, or use another template",
            )
        chars = (places[opening], places[closing])
        blocks.append(Block(source=source, kind=kind, text=plain[slice(*chars)], chars=chars, tokens=(0, 0)))
    return plain, tuple(sorted(blocks, key=lambda block: block.chars))


def token_spans(offsets: Sequence[Span], blocks: Sequence[Span]) -> list[Span]:
    """The tokens of each block; (n, n) for a block without any.

    Args:
        offsets: of each token in the text, in order; tokens without text are empty and belong to no block.
        blocks: character spans that do not overlap.
    """
    owned: list[list[int]] = [[] for _ in blocks]
    for token, (start, stop) in enumerate(offsets):
        shares = [min(stop, block[1]) - max(start, block[0]) for block in blocks]
        largest = max(shares, default=0)
        if largest > 0:
            owned[shares.index(largest)].append(token)
    spans = []
    for block, tokens in zip(blocks, owned, strict=True):
        if tokens:
            spans.append((tokens[0], tokens[-1] + 1))
        else:
            before = sum(stop <= block[0] for _, stop in offsets)
            spans.append((before, before))
    return spans


def output_spans(prefixes: Sequence[str], text: str) -> tuple[Span, ...]:
    """Where each output token lies in the text.

    Args:
        prefixes: what the first 1, 2, ... tokens decode to.
        text: what all of them decode to. A character of several tokens belongs to the last of them.
    """
    spans, start = [], 0
    for prefix in prefixes:
        stop = max(start, _common_length(prefix, text, start))
        spans.append((start, stop))
        start = stop
    return tuple(spans)


def _common_length(left: str, right: str, known: int) -> int:
    length = known
    for a, b in zip(left[known:], right[known:], strict=False):
        if a != b:
            break
        length += 1
    return length


def _mark(text: str, opening: str, closing: str) -> str:
    core = text.strip()
    start = text.index(core) if core else 0
    return text[:start] + opening + core + closing + text[start + len(core) :]
