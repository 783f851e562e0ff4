"""Any function of a prompt and a message as a language model, async ones too: other clients, libraries, fakes."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Thread
from typing import Any, Protocol, cast

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.gbc.language_models.interface import Reply, Request, stop_in
from framework.gbc.language_models.prompt_encoding import render_blocks

Answer = str | Awaitable[str]
Ask = Callable[[Request], Answer]
"""What answers a request."""


class CallableModel:
    """A function as a language model; its inputs have no tokens, so that no gradient can be taken.

    A request that raises fails its task alone. What an async function returns is awaited on one event loop, which stays
    (clients keep their connections on it), so that it may be used where a loop runs already, as in a notebook.

    Args:
        function: `(prompt, message)` to the answer, a text; it may be async.
        parallel: requests at a time, at most.

    Raises:
        ConfigError: fewer than one request at a time.
    """

    def __init__(self, function: Callable[[str, str], Answer], *, parallel: int = 8) -> None:
        if parallel < 1:
            raise ConfigError(f"parallel {parallel}", hint="use 1 request at a time or more")
        self._function, self._parallel = function, parallel

    def reply(self, requests: Sequence[Request]) -> list[Reply | FrameworkError]:
        """The answers to requests, in their order; one that raised has its error in place of it."""
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(self._reply, requests))

    def ask(self, request: Request) -> Answer:
        """The function's answer to a request."""
        return self._function(request.prompt, request.message)

    def _reply(self, request: Request) -> Reply | FrameworkError:
        try:
            answer: object = self.ask(request)
            output = _awaited(cast("Awaitable[object]", answer)) if inspect.isawaitable(answer) else answer
            if not isinstance(output, str):
                raise TypeError(f"it returned {type(output).__name__}, not a text")
        except FrameworkError as error:
            return error
        except Exception as error:
            problem = f"the model of {request.step!r} raised {type(error).__name__} ({error})"
            return DataError(problem, hint="see what it was asked")
        text, blocks = render_blocks(lambda prompt, message: f"{prompt}\n\n{message}", request)
        return Reply(
            input_text=text,
            input_ids=(),
            input_spans=(),
            blocks=blocks,
            output=output[: stop_in(output, request.stop)],
            output_ids=(),
            output_spans=(),
            finish="stop",
        )


class _Completions(Protocol):
    @property
    def create(self) -> Callable[..., Any]: ...


class _Chat(Protocol):
    @property
    def completions(self) -> _Completions: ...


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

    def ask(self, request: Request) -> Answer:
        """The client's answer to a request."""
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


_LOCK = Lock()
_LOOPS: list[asyncio.AbstractEventLoop] = []


def _awaited(answer: Awaitable[object]) -> object:
    """What an awaitable gives, on a loop that a thread of our own keeps running."""

    async def wait() -> object:
        return await answer

    with _LOCK:
        if not _LOOPS:
            _LOOPS.append(asyncio.new_event_loop())
            Thread(target=_LOOPS[0].run_forever, name="async models", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(wait(), _LOOPS[0]).result()
