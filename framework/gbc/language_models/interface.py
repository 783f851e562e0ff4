"""What the framework asks of a language model: requests in, replies out. Plain data, no tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from framework.core.errors import FrameworkError
from framework.gbc.graph.trace import Block, Span


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
        stop: texts that end the answer where they begin; they are not part of it.
    """

    step: str
    prompt: str
    pieces: tuple[Piece, ...]
    max_new_tokens: int
    seed: int = 0
    stop: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """The user message as text."""
        return "".join(piece.text for piece in self.pieces)


def stop_in(text: str, stop: Sequence[str]) -> int | None:
    """Where the first of the texts that end an answer begins; None where there is none."""
    return min((text.index(each) for each in stop if each in text), default=None)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A model's answer and what it saw; the fields are those of `graph.trace.Step`.

    Attributes:
        usage: tokens read and written, as a server counts them; None where `input_ids` and `output_ids` tell.
    """

    input_text: str
    input_ids: tuple[int, ...]
    input_spans: tuple[Span, ...]
    blocks: tuple[Block, ...]
    output: str
    output_ids: tuple[int, ...]
    output_spans: tuple[Span, ...]
    finish: Literal["stop", "length"]
    usage: tuple[int, int] | None = None


@runtime_checkable
class LanguageModel(Protocol):
    """What answers agents: `LocalModel`, `ServerModel`, or any object with this method."""

    def reply(self, requests: Sequence[Request]) -> Sequence[Reply | FrameworkError]:
        """An answer or an error for each request, in their order."""
        ...


@runtime_checkable
class RecitingModel(LanguageModel, Protocol):
    """A model that can be taken to have given certain answers, as its tokens: `LocalModel`."""

    def recite(self, requests: Sequence[Request], outputs: Sequence[str]) -> Sequence[Reply | FrameworkError]:
        """`reply` with these answers; nothing is generated."""
        ...
