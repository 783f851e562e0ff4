"""Turns whose agents say what changes in the state and answer: their tasks, and what the agents should say (ours).

Answers have placeholders (`[hotel_phone]`) for what a database knows. Few-shot files have no annotation of them: they
are found in the text.
"""

import random
import re
from collections.abc import Mapping, Sequence

from framework.core.errors import ConfigError
from framework.core.serialization import JsonDict
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue
from framework.gbc.environments.multiwoz.dataset.mentions import Mention, MentionReader
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, domain_of
from framework.gbc.environments.multiwoz.state_tracking.turns import (
    apply_change,
    change_task,
    exchanges,
    write_change,
    write_state,
)
from framework.gbc.environments.multiwoz.tasks import NO_STATE
from framework.gbc.execution.runner import Task

_REPLACED = ("name", "address", "phone", "postcode", "trainid", "reference")
"""What answers have placeholders for: names, and what Success asks for."""
_REFERENCE = re.compile(
    r"(?i)(?<=reference)[^.?!]{0,20}?\b"
    r"(?P<value>(?=[a-z]*[0-9])(?=[0-9]*[a-z])[a-z0-9]{8}|(?:(?<=is )|(?<=[:#] ))[a-z]{8})\b"
)
"""Letters alone, such as `txpijfpy`, could be any word of eight, but for where a value stands."""


def with_placeholders(text: str, reader: MentionReader, domain: str) -> str:
    """An answer with `[domain_attribute]` for names, addresses, phones, postcodes, train and reference numbers.

    Args:
        text: the answer.
        reader: of the release's names.
        domain: what the answer is about, where the value does not tell.
    """
    found = [each for each in reader.read(text) if each.attribute in _REPLACED]
    found += [
        Mention(attribute="reference", domain="", entities=(), start=match.start("value"), stop=match.end("value"))
        for match in _REFERENCE.finditer(text)
    ]
    # Of values that overlap the longest, and of equal ones that of the domain, is meant.
    found.sort(key=lambda each: (each.start - each.stop, each.domain != domain))
    chosen: list[Mention] = []
    for each in found:
        if all(each.stop <= other.start or each.start >= other.stop for other in chosen):
            chosen.append(each)
    for each in sorted(chosen, key=lambda each: each.start, reverse=True):
        about = each.domain or domain
        if about:
            text = f"{text[: each.start]}[{about}_{each.attribute}]{text[each.stop :]}"
    return text


def answer_tasks(dialogue: Dialogue, reader: MentionReader) -> list[JsonDict]:
    """The turns of a dialogue that have an answer, as tasks: those of `change_task`, and `reference`, the answer.

    Args:
        dialogue: with its labels, which are the state so far.
        reader: finds the values that are placeholders in `reference`.
    """
    tasks: list[JsonDict] = []
    for number, exchange in enumerate(exchanges(dialogue)):
        answer = dialogue.turns[number].system
        after = apply_change(exchange.before, exchange.change)
        about = domain_of(list(after)[-1]) if after else ""
        if answer:
            reference = " ".join(with_placeholders(answer, reader, about).split())
            tasks.append({**change_task(dialogue, number, exchange), "reference": reference})
    return tasks


def draw_answer_tasks(
    dialogues: Sequence[Dialogue], reader: MentionReader, num_tasks: int, *, seed: int
) -> list[JsonDict]:
    """Turns of dialogues, drawn without replacement.

    Args:
        dialogues: with their labels.
        reader: as of `answer_tasks`.
        num_tasks: turns.
        seed: of the choice.

    Raises:
        ConfigError: fewer turns in the dialogues.
    """
    tasks = [task for dialogue in dialogues for task in answer_tasks(dialogue, reader)]
    if not 1 <= num_tasks <= len(tasks):
        hint = f"use 1 to {len(tasks)}, the turns that have an answer"
        raise ConfigError(f"{num_tasks} turns to train on", hint=hint)
    return random.Random(f"answers/{seed}").sample(tasks, num_tasks)


def team_targets(task: Task) -> dict[str, str]:
    """What a manager, workers and a responder should say: the domains that change, what changes, the answer."""
    change: Mapping[str, str] = task["expected"]
    domains = [domain for domain in DOMAINS if any(domain_of(slot) == domain for slot in change)]
    workers = {domain: write_change(change, domain) for domain in DOMAINS}
    return {"manager": ", ".join(domains) or NO_STATE, **workers, "responder": task["reference"]}


def alone_targets(task: Task) -> str:
    """What one agent alone should say: the change on the first line, the answer on the second."""
    return f"{write_state(task['expected'])}\n{task['reference']}"
