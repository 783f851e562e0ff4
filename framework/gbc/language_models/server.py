"""Models on a server that speaks OpenAI's chat completions: for roles that need no gradient."""

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import httpx

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.gbc.language_models.interface import Reply, Request
from framework.gbc.language_models.prompt_encoding import render_blocks

_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}


class ServerError(FrameworkError):
    """A model server that is down, too slow or refuses."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class ServerModelConfig:
    """A model on a server.

    Args:
        url: of the interface, up to and with its version, such as http://localhost:8000/v1.
        model: the name that the server knows.
        key_file: a file with the key, sent as a bearer token; none by default.
        temperature: of sampling.
        timeout_s: longest wait for an answer, in seconds.
        retries: further attempts after the first, for time-outs, broken connections and the states 408, 409, 425,
            429 and 5xx.
        backoff_s: wait before the first retry, in seconds; doubled each time, with up to a quarter more at random.
        parallel: requests at a time.
    """

    url: str
    model: str
    key_file: str | None = None
    temperature: float = 0.0
    timeout_s: float = 60.0
    retries: int = 3
    backoff_s: float = 1.0
    parallel: int = 8

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"server {self.url!r}", hint="give a URL such as http://localhost:8000/v1")
        if self.retries < 0 or self.parallel < 1 or self.timeout_s <= 0 or self.backoff_s < 0:
            hint = "use 0 or more retries, 1 or more at a time, and positive times"
            raise ConfigError(
                f"retries {self.retries}, parallel {self.parallel}, timeout_s {self.timeout_s}", hint=hint
            )


class ServerModel:
    """A client. Its inputs have no token ids, so that no gradient can be taken."""

    def __init__(self, config: ServerModelConfig) -> None:
        self.config = config
        self.headers: dict[str, str] = {}
        if config.key_file is not None:
            try:
                with open(config.key_file, encoding="utf-8") as stream:  # noqa: PTH123 - read once
                    self.headers["Authorization"] = f"Bearer {stream.read().strip()}"
            except OSError as error:
                problem = f"key file {config.key_file} cannot be read ({error.strerror})"
                raise ConfigError(problem, hint="give a readable file") from None

    def reply(self, requests: Sequence[Request]) -> list[Reply | FrameworkError]:
        """The answers to requests, in their order; a request that fails for good has its error in place of one.

        After a first request that failed for good by time or connection, those not yet begun fail at once.
        """
        down: list[ServerError] = []

        def ask(request: Request) -> Reply | FrameworkError:
            if down:
                return down[0]
            try:
                return self._ask(client, request)
            except ServerError as error:
                down.append(error)
                return error
            except DataError as error:
                return error

        with (
            httpx.Client(headers=self.headers, timeout=self.config.timeout_s) as client,
            ThreadPoolExecutor(self.config.parallel) as pool,
        ):
            return list(pool.map(ask, requests))

    def _ask(self, client: httpx.Client, request: Request) -> Reply:
        text, blocks = render_blocks(lambda prompt, message: f"{prompt}\n\n{message}", request)
        body = {
            "model": self.config.model,
            "messages": [
                {"role": "system", "content": request.prompt},
                {"role": "user", "content": request.message},
            ],
            "max_tokens": request.max_new_tokens,
            "temperature": self.config.temperature,
            "seed": request.seed,
        }
        answer: Any = self._post(client, body)
        try:
            choice = answer["choices"][0]
            output, finish = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError):
            output, finish = None, None
        if not isinstance(output, str):
            problem = f"{self.config.url} gave no chat completion to {request.step!r}: {str(answer)[:200]}"
            raise DataError(problem, hint="see whether the server speaks OpenAI's chat completions")
        return Reply(
            input_text=text,
            input_ids=(),
            input_spans=(),
            blocks=blocks,
            output=output,
            output_ids=(),
            output_spans=(),
            finish="length" if finish == "length" else "stop",
            usage=_usage(answer),
        )

    def _post(self, client: httpx.Client, body: Mapping[str, object]) -> object:
        problem = ""
        for attempt in range(self.config.retries + 1):
            if attempt:
                # Many clients that fail together must not come back together.
                time.sleep(self.config.backoff_s * 2 ** (attempt - 1) * random.uniform(1, 1.25))
            try:
                response = client.post(f"{self.config.url.rstrip('/')}/chat/completions", json=body)
            except httpx.TimeoutException:
                problem = f"no answer within {self.config.timeout_s} s"
                continue
            except httpx.TransportError as error:
                problem = str(error) or type(error).__name__
                continue
            if response.status_code in _RETRIED:
                problem = f"state {response.status_code}"
                continue
            if response.status_code != 200:
                raise ServerError(
                    f"{self.config.url} refuses with state {response.status_code}: {response.text[:200]}",
                    hint="see the server's message, the model's name and the key",
                )
            try:
                return response.json()
            except ValueError:
                return response.text
        raise ServerError(
            f"{self.config.url} failed {self.config.retries + 1} times, at last: {problem}",
            hint="see whether the server runs, or allow more time or retries",
        )


def _usage(answer: Mapping[str, object]) -> tuple[int, int] | None:
    """Tokens read and written, where the server tells."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = cast(dict[str, object], usage)
    read, written = counts.get("prompt_tokens"), counts.get("completion_tokens")
    return (read, written) if isinstance(read, int) and isinstance(written, int) else None
