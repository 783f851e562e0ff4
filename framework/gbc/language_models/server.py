"""Models on a server that speaks OpenAI's chat completions: for roles that need no gradient."""

import json
import math
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from framework.core.errors import ConfigError, DataError, FrameworkError
from framework.core.text_files import parse_json, read_text
from framework.gbc.language_models.interface import Reply, Request, stop_in
from framework.gbc.language_models.prompt_encoding import render_blocks
from framework.gbc.language_models.server_answers import choice_of, error_state, quote, said_in, usage_of, words_of_page

_RETRIED = {408, 409, 425, 429, *range(500, 600)} - {501, 505}
_LARGEST_ANSWER = 64 * 2**20
"""Bytes; a completion has far fewer."""
_OF_THIS_REQUEST = re.compile(
    r"context|too long|too many tokens|content.{0,3}(filter|policy|management)", re.IGNORECASE
)
"""What a server says that refuses a request for what is in it, and not for how it is asked."""


_OF_ROLES = re.compile(r"\broles?\b|(?:system|developer) (?:message|instruction|prompt)", re.IGNORECASE)
"""What a server says that does not take a prompt in a role of its own."""
_TOO_MANY = re.compile(r"too (?:large|big|high)|at most|exceed|less than or equal", re.IGNORECASE)
"""What a server says that takes no bound as high."""
_AGAIN_HINTS = {429: "see the quota of the key, or lower parallel of the model"}


class ServerError(FrameworkError):
    """A model server that is down, too slow or refuses."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class RequestFields:
    """How a server wants to be asked, where it does not take all of OpenAI's older fields.

    Args:
        max_tokens: key of the bound of an answer, such as max_completion_tokens; null leaves the bound out.
        temperature: key of the temperature; null leaves it out.
        seed: key of the seed; null leaves it out.
        stop: key of the texts that end an answer; null leaves them out: the answer is cut here.
        system: role of the agent's prompt, such as developer; null puts the prompt before the user's message.
        extra: further fields, such as `chat_template_kwargs: {enable_thinking: false}` or `reasoning_effort: low`.
    """

    max_tokens: str | None = "max_tokens"
    temperature: str | None = "temperature"
    seed: str | None = "seed"
    stop: str | None = "stop"
    system: str | None = "system"
    extra: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class ServerModelConfig:
    """A model on a server.

    Args:
        url: of the interface, up to and with its version, such as http://localhost:8000/v1.
        model: the name that the server knows.
        key_file: a file with the key, sent as a bearer token; none by default.
        request: fields of a request that have other names there, or are left out.
        temperature: of sampling.
        timeout_s: longest time for an answer as a whole, in seconds.
        retries: further attempts after the first, for time-outs, broken connections and the states 408, 409, 425,
            429 and 5xx but for 501 and 505.
        backoff_s: wait before the first retry, in seconds; doubled each time, with up to a quarter more at random. A
            server that asks for more (`Retry-After`) gets it.
        longest_wait_s: a server that asks for a longer wait than this has failed, in seconds.
        parallel: requests at a time.
    """

    url: str
    model: str
    key_file: str | None = None
    request: RequestFields = RequestFields()
    temperature: float = 0.0
    timeout_s: float = 60.0
    retries: int = 3
    backoff_s: float = 1.0
    longest_wait_s: float = 120.0
    parallel: int = 8

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except (httpx.InvalidURL, UnicodeError):
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"server {self.url!r}", hint="give a URL such as http://localhost:8000/v1")
        if url.userinfo or url.query or url.fragment:
            problem = f"the URL of the server {url.host} has more than a path behind its host, or a user before it"
            raise ConfigError(problem, hint="give it without ?, # and @, and a key as key_file")
        if url.path.rstrip("/").endswith("/chat/completions"):
            hint = "leave it out: the URL goes up to and with the version, such as http://localhost:8000/v1"
            raise ConfigError(f"the server's URL {self.url} ends in /chat/completions", hint=hint)
        if self.retries < 0 or self.parallel < 1 or self.timeout_s <= 0 or min(self.backoff_s, self.longest_wait_s) < 0:
            hint = "use 0 or more retries, 1 or more at a time, and positive times"
            raise ConfigError(
                f"retries {self.retries}, parallel {self.parallel}, timeout_s {self.timeout_s}", hint=hint
            )


class ServerModel:
    """A client. Its inputs have no token ids, so that no gradient can be taken."""

    def __init__(self, config: ServerModelConfig) -> None:
        self.config = config
        self.headers = {"Content-Type": "application/json"}
        if config.key_file is not None:
            self.headers["Authorization"] = f"Bearer {_read_key(config.key_file)}"

    def reply(self, requests: Sequence[Request]) -> list[Reply | FrameworkError]:
        """The answers to requests, in their order; a request that fails for good has its error in place of one.

        After a first request that failed for good by time, connection or the way of asking, those not yet begun fail at
        once.
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

        with self._client() as client, ThreadPoolExecutor(self.config.parallel) as pool:
            return list(pool.map(ask, requests))

    def _client(self) -> httpx.Client:
        try:
            return httpx.Client(headers=self.headers, timeout=self.config.timeout_s)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            # Nothing else of it comes from outside.
            problem = f"the proxy that the environment names cannot be used ({error})"
            raise ConfigError(problem, hint="see HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, or set NO_PROXY") from None

    def _ask(self, client: httpx.Client, request: Request) -> Reply:
        text, blocks = render_blocks(lambda prompt, message: f"{prompt}\n\n{message}", request)
        answer = self._post(client, self._body(request))
        choice = choice_of(answer)
        if choice is None:
            problem = (
                f"{self.config.url} gave no chat completion to {request.step!r}{self._route()}: {self._quoted(answer)}"
            )
            raise DataError(problem, hint=_no_completion_hint(answer))
        output = said_in(choice, request, self.config.url)
        end = stop_in(output, request.stop)
        return Reply(
            input_text=text,
            input_ids=(),
            input_spans=(),
            blocks=blocks,
            output=output[:end],
            output_ids=(),
            output_spans=(),
            finish="length" if choice.get("finish_reason") == "length" and end is None else "stop",
            usage=usage_of(cast("Mapping[str, object]", answer)),
        )

    def _body(self, request: Request) -> dict[str, object]:
        fields = self.config.request
        if fields.system is None:
            messages = [{"role": "user", "content": f"{request.prompt}\n\n{request.message}"}]
        else:
            messages = [
                {"role": fields.system, "content": request.prompt},
                {"role": "user", "content": request.message},
            ]
        values = (
            (fields.max_tokens, request.max_new_tokens),
            (fields.temperature, self.config.temperature),
            (fields.seed, request.seed),
        )
        if request.stop:
            values = (*values, (fields.stop, list(request.stop)))
        named = {key: value for key, value in values if key is not None}
        return {"model": self.config.model, "messages": messages, **named, **fields.extra}

    def _post(self, client: httpx.Client, body: Mapping[str, object]) -> object:
        """The parsed answer, or its text where it is not JSON."""
        attempts = Retrying(
            retry=retry_if_exception_type(_AgainError),
            stop=stop_after_attempt(self.config.retries + 1),
            wait=self._wait,
            reraise=True,
        )
        try:
            content = attempts(self._post_once, client, json.dumps(body).encode())
        except _AgainError as error:
            raise ServerError(
                f"{self.config.url} failed {self.config.retries + 1} times, at last: {error}{self._route()}",
                hint=self._proxy_hint() or error.hint or "see whether the server runs, or allow more time or retries",
            ) from None
        try:
            return parse_json(content)
        except ValueError as error:
            return f"{self._quoted(content)} ({error})" if content.strip() else "an empty answer"

    def _post_once(self, client: httpx.Client, body: bytes) -> bytes:
        """An answer of state 200; what may go better another time raises _AgainError."""
        url = f"{self.config.url.rstrip('/')}/chat/completions"
        deadline = time.monotonic() + self.config.timeout_s
        try:
            with client.stream("POST", url, content=body) as response:
                content = self._read(response, deadline)
        except httpx.TimeoutException:
            raise _AgainError(self._too_slow()) from None
        except httpx.RequestError as error:
            raise _AgainError(str(error) or type(error).__name__) from None
        if response.is_success:
            if (state := error_state(content)) in _RETRIED:
                raise _AgainError(f"an error of state {state}: {self._quoted(content)}")
            return content
        words = f"state {response.status_code}: {self._quoted(content)}".rstrip(": ")
        if response.status_code in _RETRIED:
            wait_s = retry_after_s(response.headers)
            if wait_s is not None and wait_s > self.config.longest_wait_s:
                problem = f"{self.config.url} asks to wait {wait_s:g} s ({words})"
                raise ServerError(problem, hint="go on later, or raise longest_wait_s of the model")
            raise _AgainError(words, wait_s=wait_s or 0.0, hint=_AGAIN_HINTS.get(response.status_code, ""))
        problem = f"{self.config.url} refuses with {words}{self._route()}"
        if response.status_code == 413 or (response.status_code in (400, 422) and _OF_THIS_REQUEST.search(words)):
            raise DataError(problem, hint="see what the agents read")
        raise ServerError(problem, hint=self._proxy_hint() or self._refusal_hint(response, words))

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        """The body of an answer, if all of it is there at a time of the monotonic clock."""
        content = bytearray()
        for part in response.iter_bytes():
            content += part
            if len(content) > _LARGEST_ANSWER:
                raise _AgainError(f"an answer of more than {_LARGEST_ANSWER >> 20} MiB")
            # Each part that comes may have come in time.
            if time.monotonic() > deadline:
                raise _AgainError(self._too_slow())
        return bytes(content)

    def _too_slow(self) -> str:
        return f"no answer within {self.config.timeout_s} s"

    def _quoted(self, answer: object) -> str:
        """What a server said, without the key, which some repeat."""
        words = quote(words_of_page(answer.decode(errors="replace")) if isinstance(answer, bytes) else answer)
        _, _, key = self.headers.get("Authorization", "").partition(" ")
        return words.replace(key, "<removed>") if key else words

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before the next attempt."""
        error = state.outcome.exception() if state.outcome else None
        wanted = error.wait_s if isinstance(error, _AgainError) else 0.0
        # Many clients that fail together must not come back together.
        return max(wanted, wait_exponential(self.config.backoff_s)(state)) * random.uniform(1, 1.25)

    def _refusal_hint(self, response: httpx.Response, words: str) -> str:
        """What to do about a server that is elsewhere, or does not take a field."""
        if response.has_redirect_location:
            return f"it sends on to {response.headers['location'].partition('?')[0]}: give the URL of that place"
        if response.status_code in (401, 403):
            return "see key_file of the model"
        if response.status_code == 404:
            return "see the model's name, and whether the URL goes up to the version, such as /v1"
        fields = self.config.request
        for name in ("max_tokens", "temperature", "seed", "stop"):
            key: str | None = getattr(fields, name)
            if key is not None and re.search(rf"\b{re.escape(key)}\b", words):
                if name == "max_tokens" and _TOO_MANY.search(words):
                    return "lower max_new_tokens of the agents"
                other = "max_completion_tokens" if "max_completion_tokens" in words and name == "max_tokens" else "null"
                return f"give the model `request: {{{name}: {other}}}`"
        if fields.system is not None and _OF_ROLES.search(words):
            return "give the model `request: {system: null}`, which puts prompts before the user's message"
        return "see the server's message, the model's name and the key"

    def _route(self) -> str:
        """The proxy between here and the server, in words; empty where there is none."""
        proxy = proxy_of(self.config.url)
        return f" (through the proxy {proxy})" if proxy else ""

    def _proxy_hint(self) -> str:
        host = urlsplit(self.config.url).hostname
        return f"see whether the proxy knows the server, or set NO_PROXY={host}" if proxy_of(self.config.url) else ""


def _no_completion_hint(answer: object) -> str:
    """What to do about an answer that is no chat completion."""
    if isinstance(answer, str) and answer.startswith("data:"):
        return "the server streams: leave `stream` out of `request: {extra: ...}`, or turn it off there"
    return "see whether the server speaks OpenAI's chat completions"


class _AgainError(Exception):
    """A failure that another attempt may be spared, after so many seconds at least."""

    def __init__(self, problem: str, *, wait_s: float = 0.0, hint: str = "") -> None:
        super().__init__(problem)
        self.wait_s, self.hint = wait_s, hint


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, in numbers or as a date; None where it does not."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def proxy_of(url: str) -> str | None:
    """Host and port of the proxy through which the environment sends requests to a URL, and the variable's name."""
    parts = urlsplit(url)
    proxies = getproxies()
    if proxy_bypass(parts.hostname or ""):
        return None
    for scheme in (parts.scheme, "all"):
        if value := proxies.get(scheme):
            # Without its password.
            where = urlsplit(value if "://" in value else f"http://{value}").netloc.rpartition("@")[2]
            names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
            return f"{where} of {next((name for name in names if name in os.environ), names[1])}"
    return None


def _read_key(path: str) -> str:
    """The key in a file: one line of letters, digits and signs that a header can carry.

    Raises:
        ConfigError: no such file, or something else in it; never shows it.
    """
    key = read_text(path, hint="give a readable file with the key", error=ConfigError).strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"key file {path} does not hold one key", hint="write the key alone, in one line")
    return key
