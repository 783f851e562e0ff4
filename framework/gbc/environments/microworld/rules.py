"""What prompts mean: the answer that an agent of the micro world should give, by rules (ours).

The language model is trained to do as these rules say for every prompt, right or wrong for the system at hand.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from framework.gbc.environments.microworld.system import (
    DOMAINS,
    FIELDS,
    FULL,
    NONE,
    NOTHING,
    REST,
    SAME,
    SHORT,
    parse_slots,
)
from framework.gbc.language_models.interface import Reply, Request

_ROW = re.compile(r"(\S+) from (\S+)(?: ([^\s,]\S*))?")
_ROUTE = re.compile(r"(\S+) for (\S+)")


class RuleModel:
    """A language model that follows the rules: the reference for the trained one."""

    def reply(self, requests: Sequence[Request]) -> list[Reply]:
        """The answers to requests."""
        return [
            Reply(
                input_text=f"{request.prompt}\n{request.message}",
                input_ids=(),
                input_spans=(),
                blocks=(),
                output=answer(request.prompt, request.message),
                output_ids=(),
                output_spans=(),
                finish="stop",
            )
            for request in requests
        ]


def answer(prompt: str, message: str) -> str:
    """The right answer of an agent with a prompt to a message of lines `node: text`."""
    head, _, rules = prompt.partition(" : ")
    texts = dict(line.split(":", 1) for line in message.splitlines() if ":" in line)
    if head == "manager":
        return _manage(dict(_ROUTE.findall(rules)), texts.get("user", ""))
    rows = {field: (source, style or SAME) for field, source, style in _ROW.findall(rules)}
    if head == "responder":
        return _respond(rows, texts)
    worker, _, domain = message.partition("\n")[0].split()
    sent = dict(pairwise(texts.get("manager", "").split())).get(worker, REST) != REST
    return " ".join(_fill(domain, rows, parse_slots(texts.get("user", "")) if sent else {}))


def _manage(routes: dict[str, str], request: str) -> str:
    """`alpha hotel bravo rest ...`: for every worker what it is sent for, of the domains that are asked for."""
    wanted = {slot.partition("-")[0] for slot in parse_slots(request)}
    return " ".join(f"{worker} {domain if domain in wanted else REST}" for worker, domain in routes.items())


def _fill(domain: str, rows: dict[str, tuple[str, str]], asked: dict[str, str]) -> list[str]:
    words: list[str] = []
    for field in FIELDS:
        source, style = rows.get(field, (NOTHING, SAME))
        words += [f"{domain}-{field}", styled(asked.get(f"{domain}-{source}", NONE), style)]
    return words


def _respond(rows: dict[str, tuple[str, str]], texts: dict[str, str]) -> str:
    slots = {name: value for text in texts.values() for name, value in parse_slots(text).items()}
    words: list[str] = []
    for domain in dict.fromkeys(slot.partition("-")[0] for slot in slots):
        if domain in DOMAINS:
            words += [*_fill(domain, rows, slots), f"{domain}-name", slots.get(f"{domain}-name", NONE)]
    return " ".join(words)


def styled(value: str, style: str) -> str:
    """A value written full, short, or as it is."""
    return {"full": FULL, "short": SHORT}.get(style, {}).get(value, value)
