"""From the single calls of models, each with all that it was given, to a log.

What a call was given is what its agent read: messages that an earlier call made, or that an earlier one was given too,
are the same message; what is new came from outside. So `reads` is known, and no message stands twice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from framework.gbc.logs.forms.openai import content_of, message_of
from framework.gbc.logs.schema import JsonObject, Log, Message

SpanT = TypeVar("SpanT")
_SHORTEST = 20
"""Characters of an answer that is looked for inside of later messages: short ones stand there by chance."""


@dataclass(frozen=True, kw_only=True)
class ModelCall:
    """A call of a language model.

    Attributes:
        agent: who called it.
        given: messages as chat completions have them, prompts among them.
        said: the answer, as an assistant's message.
    """

    agent: str
    given: Sequence[JsonObject]
    said: JsonObject


def log_of_calls(calls: Sequence[ModelCall], *, id: str) -> Log:
    """The log of a run.

    Args:
        calls: in the order in which they ended.
        id: of the log.

    Raises:
        ValueError: a message that is not understood.
        DataError: what `Log` finds.
    """
    builder = _Builder()
    for call in calls:
        builder.add(call)
    asked = next((message.content for message in builder.messages if message.role == "user"), "")
    return Log(id=id, task=asked, messages=tuple(builder.messages), prompts=builder.prompts)


def outwards(
    span: SpanT, spans: Mapping[str, SpanT], *, id_of: Callable[[SpanT], str], parent_of: Callable[[SpanT], str]
) -> Iterator[SpanT]:
    """A span of a trace and those around it, from the inside out.

    Spans without ids, or from two programs with the same ones, may stand around each other: each comes once.

    Args:
        span: the innermost.
        spans: by their ids.
        id_of: a span's id.
        parent_of: the id of the span around it.
    """
    seen = set[str]()
    above: SpanT | None = span
    while above is not None and id_of(above) not in seen:
        yield above
        seen.add(id_of(above))
        above = spans.get(parent_of(above))


class _Builder:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.prompts: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._places: dict[tuple[str, str], list[int]] = {}

    def add(self, call: ModelCall) -> None:
        """Adds what of a call is not there yet."""
        read: set[int] = set()
        seen: dict[tuple[str, str], int] = {}
        prompts: list[str] = []
        for given in call.given:
            if given.get("role") in ("system", "developer"):
                prompts.append(content_of(given))
                continue
            read |= self._read(given, call.agent, seen, read)
        # Later prompts differ in the date and the like.
        if prompts:
            self.prompts.setdefault(call.agent, "\n\n".join(prompts))
        said = message_of({**call.said, "role": "assistant", "name": call.agent}, (), self._names)
        self._append(replace(said, reads=tuple(sorted(read))))

    def _read(self, given: JsonObject, agent: str, seen: dict[tuple[str, str], int], before: set[int]) -> set[int]:
        """Numbers of the messages that a given one stands for.

        Args:
            given: the message.
            agent: whose call it is.
            seen: how often each text stood in this call so far.
            before: numbers of the messages that stand before it.
        """
        named = {**given, "name": given.get("name") or agent} if given.get("role") == "assistant" else given
        message = message_of(named, (), self._names)
        key = _key(message)
        count = seen[key] = seen.get(key, 0) + 1
        places = self._places.get(key, [])
        if count <= len(places):
            return {places[count - 1]}
        if message.role == "agent":
            # An answer of before anything was recorded.
            message = replace(message, reads=tuple(sorted(before)))
        if message.role != "user":
            return {self._append(message)}
        inside, text = set[int](), message.content
        for number, earlier in enumerate(self.messages):
            said = earlier.content.strip()
            if earlier.role == "agent" and len(said) >= _SHORTEST and said in text:
                text = text.replace(said, f"[message {number} of {earlier.agent}]")
                inside.add(number)
        number = self._append(replace(message, content=text))
        if text != message.content:
            self._places.setdefault(key, []).append(number)
        return {*inside, number}

    def _append(self, message: Message) -> int:
        number = len(self.messages)
        self.messages.append(message)
        self._places.setdefault(_key(message), []).append(number)
        self._names.update((each.id, each.name) for each in message.tool_calls)
        return number


def _key(message: Message) -> tuple[str, str]:
    """What makes two messages the same: of tools the call they answer, of all others what they say."""
    if message.call:
        return "call", message.call
    ids = " ".join(each.id for each in message.tool_calls if each.id)
    return ("calls", ids) if ids else ("text", message.text.strip())
