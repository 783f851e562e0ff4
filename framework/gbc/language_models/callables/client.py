"""OpenAI's own client, or one that looks like it, as a language model."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

from framework.gbc.language_models.callables.function import CallableModel
from framework.gbc.language_models.interface import Request


@runtime_checkable
class _Completions(Protocol):
    @property
    def create(self) -> Callable[..., Any]: ...


@runtime_checkable
class _Chat(Protocol):
    @property
    def completions(self) -> _Completions: ...


@runtime_checkable
class ChatClient(Protocol):
    """A client with `chat.completions.create`: OpenAI's own, sync or async, or one that looks like it."""

    @property
    def chat(self) -> _Chat: ...


class ClientModel(CallableModel):
    """A language model by OpenAI's own client (`openai.AsyncOpenAI`, `openai.OpenAI`), which retries by itself.

    Args:
        client: the client.
        model: its name there.
        parallel: requests at a time, at most.
        fields: further fields of every request, such as `temperature`; None leaves one of ours out (`max_tokens`,
            `seed`, `stop`).
    """

    def __init__(
        self, client: ChatClient, model: str, *, parallel: int = 8, fields: dict[str, object] | None = None
    ) -> None:
        super().__init__(lambda prompt, message: "", parallel=parallel)
        self._create, self._model, self._fields = client.chat.completions.create, model, fields or {}

    def ask(self, request: Request) -> object:
        """The client's answer to a request, or what gives it when it is awaited."""
        messages = [{"role": "system", "content": request.prompt}, {"role": "user", "content": request.message}]
        ours: dict[str, object] = {"max_tokens": request.max_new_tokens, "seed": request.seed}
        ours |= {"stop": list(request.stop)} if request.stop else {}
        body = {key: value for key, value in (ours | self._fields).items() if value is not None}
        completion = self._create(model=self._model, messages=messages, **body)
        return _said_later(completion) if inspect.isawaitable(completion) else _said(completion)


async def _said_later(completion: Awaitable[Any]) -> str:
    return _said(await completion)


def _said(completion: Any) -> str:
    choice = completion.choices[0]
    if not isinstance(choice.message.content, str):
        raise ValueError(f"no text, finished by {choice.finish_reason}")
    return choice.message.content
