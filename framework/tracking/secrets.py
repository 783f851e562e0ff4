"""Keeping secrets out of what a run writes: recipes, commands, messages.

What is removed: values of settings whose name says so (`token`, `api_key`, `password`), everything in `storage_options`
but what is known to be harmless, user and password in a URL and the parameters that sign one, words that have the form
of a well-known key, and the values of this process's environment variables whose name says so. A setting that was
removed is named when a saved recipe is used again.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from framework.core.errors import ConfigError
from framework.core.text_files import parse_yaml

REMOVED = "<removed>"
"""Stands where a secret was."""

STORAGE_OPTIONS = "storage_options"
_HARMLESS = {"endpoint_url", "region", "region_name", "protocol", "signature_version", "addressing_style"}
_SECRET_WORDS = {
    *("token", "secret", "password", "passwd", "passphrase", "pwd", "credential", "credentials", "apikey", "cookie"),
    *("auth", "authorization", "bearer", "signature", "sig", "pat"),
}
_KEYS = {"api", "access", "private", "secret", "account", "session", "encryption", "signing", "ssh"}
"""Words before `key` that make it a secret one."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_USER_INFO = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/?#@'\"]+@")
_PARAMETER = re.compile(r"(?P<name>[?&](?P<key>[A-Za-z0-9_.-]+)=)(?P<value>[^&\s'\"]+)")
_KNOWN_FORMS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}"
    r"|sk-[\w-]{20,}|xox[abprs]-[\w-]{10,}|wandb_v\d_\w{20,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)
_AUTHORIZATION = re.compile(r"\b(?P<kind>Bearer|Basic)\s+[A-Za-z0-9+/=._~-]{8,}")
_FOLDERS = {"PWD", "OLDPWD"}
"""The shell's working folders, no passwords."""
_SHORTEST = 8
"""Shorter values of environment variables are not looked for in texts: they could be any word."""


def is_secret_name(name: str) -> bool:
    """Whether the name of a setting or variable says that its value is a secret: `api_key` does, `class_tokens` not."""
    words = [word.lower() for word in _WORDS.findall(name.rpartition(".")[2])]
    pairs = pairwise(words)
    return bool(_SECRET_WORDS.intersection(words)) or any(a in _KEYS and b == "key" for a, b in pairs)


def scrubbed_text(text: str) -> str:
    """A text without what looks like a secret, and without the secrets of this process's environment."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and name not in _FOLDERS and value in text and is_secret_name(name):
            text = text.replace(value, REMOVED)
    text = _USER_INFO.sub(rf"\g<scheme>{REMOVED}@", text)
    text = _PARAMETER.sub(_scrub_parameter, text)
    text = _AUTHORIZATION.sub(rf"\g<kind> {REMOVED}", text)
    return _KNOWN_FORMS.sub(REMOVED, text)


def scrubbed_output(text: str) -> str:
    """A text that a model wrote, likewise; each half of a character in it becomes one other: so it can be saved."""
    return scrubbed_text(text).encode("utf-8", errors="replace").decode()


def _scrub_parameter(match: re.Match[str]) -> str:
    key = match["key"]
    secret = is_secret_name(key) or key.lower() in ("key", "x-amz-credential", "awsaccesskeyid")
    return match["name"] + (REMOVED if secret else match["value"])


def scrubbed(value: object, name: str = "") -> Any:
    """A copy of nested settings without secrets: names and forms of values decide.

    Args:
        value: mappings, sequences and plain values; other types stay as they are.
        name: of the setting; what is under `storage_options` is removed unless it is known to be harmless.
    """
    if name.rpartition(".")[2] == STORAGE_OPTIONS and isinstance(value, Mapping):
        return _scrubbed_options(value)
    if isinstance(value, Mapping):
        return {_scrubbed_key(key): scrubbed(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [scrubbed(item, name) for item in value]
    if isinstance(value, str | bytes) and value and is_secret_name(name):
        return REMOVED
    return scrubbed_text(value) if isinstance(value, str) else value


def _scrubbed_key(key: object) -> object:
    return scrubbed_text(key) if isinstance(key, str) else key


def _scrubbed_options(value: object, name: str = "") -> object:
    if isinstance(value, Mapping):
        return {key: _scrubbed_options(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed_options(item, name) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if name in _HARMLESS:
        return scrubbed_text(value) if isinstance(value, str) else value
    return REMOVED


def scrubbed_yaml(text: str) -> str:
    """A recipe in YAML without secrets; unchanged to the letter if there are none. Raises ConfigError."""
    recipe = parse_yaml(text, "the recipe")
    clean = scrubbed(recipe)
    return text if clean == recipe else yaml.safe_dump(clean, sort_keys=False)


def scrubbed_command(words: Sequence[str]) -> list[str]:
    """A command without secrets: `--name value`, `--name=value`, and values that are YAML of their own."""
    clean: list[str] = []
    secret = False
    for word in words:
        if word.startswith("-"):
            option, equals, value = word.partition("=")
            secret = _is_secret_option(option)
            clean.append(option + equals + (REMOVED if secret and value else _scrubbed_word(value)))
        else:
            clean.append(REMOVED if secret else _scrubbed_word(word))
            secret = False
    return clean


def _is_secret_option(option: str) -> bool:
    path = option.lstrip("-").split(".")
    return is_secret_name(path[-1]) or STORAGE_OPTIONS in path


def _scrubbed_word(word: str) -> str:
    if word.lstrip().startswith(("{", "[")):
        try:
            value = parse_yaml(word, "the option")
        except ConfigError:
            return scrubbed_text(word)
        clean = scrubbed(value)
        return word if clean == value else yaml.safe_dump(clean, default_flow_style=True, width=10**6).strip()
    return scrubbed_text(word)


def refuse_removed(recipe: Mapping[str, object]) -> None:
    """Refuses a saved recipe whose secrets were removed and have not been given again.

    Raises:
        ConfigError: names the first such setting.
    """
    for name, value in _leaves(recipe, ""):
        if isinstance(value, str) and REMOVED in value:
            raise ConfigError(
                f"{name} was removed from the saved recipe, as secrets are",
                hint=f"give it again with --{name}, or leave it out and use the environment's credentials",
            )


def _leaves(value: object, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and REMOVED in key:
                yield name, key
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, name)
    else:
        yield name, value
