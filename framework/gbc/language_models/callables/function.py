"""Any function of a prompt and a message as a language model, async ones too: other clients, libraries, fakes."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Thread
from typing import cast

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.gbc.language_models.interface import Reply, Request, stop_in
from framework.gbc.language_models.prompt_encoding import render_blocks

Answer = str | Awaitable[str]
"""A text, or what gives one when it is awaited."""


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

    def ask(self, request: Request) -> object:
        """The function's answer to a request, or what gives it when it is awaited; nothing has checked it yet."""
        return self._function(request.prompt, request.message)

    def _reply(self, request: Request) -> Reply | FrameworkError:
        try:
            answer = self.ask(request)
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
