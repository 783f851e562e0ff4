"""What a small language model learns of MultiWOZ: prompt and message of a domain's agent to the change (ours).

Training examples are made of the training dialogues alone. Few dialogues teach few names, and a model that has learned
them by heart cannot track others: so values are exchanged for others, everywhere in the example alike. Names are often
invented, and then there is nothing to do but to copy them. Words and slots are left out at random, and prompts name the
domain in one of several ways; those that list slots get these alone.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from framework.core.errors import ConfigError, DataError
from framework.core.serialization import JsonDict
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue, State
from framework.gbc.environments.multiwoz.dataset.fewshot import read_fewshot_dialogue, read_turns
from framework.gbc.environments.multiwoz.dataset.slots import DOMAINS, SLOTS, domain_of
from framework.gbc.environments.multiwoz.dataset.values import DONTCARE
from framework.gbc.environments.multiwoz.state_tracking.turns import (
    NOTHING_SAID,
    Exchange,
    change_task,
    exchanges,
    write_change,
    write_state,
)

TEMPLATE = "{state} | {system} | {user}"
"""The message of an agent: its graph's template."""

_SAYING, _RECALLED, _JOINED = 0.6, 0.15, 0.25
"""Shares of the examples in which something changes (a seventh in dialogues, of which little would be learned), that
ask for the state so far (what is copied whole teaches to copy first), and in which the user begins with another
matter."""
_NEAR = 0.6
"""Share of the examples in which nothing changes that are of a domain that the dialogue has."""
_NOISY, _NOISY_TASKS = 0.8, 0.4
"""Shares of examples and of tasks with words that are left out or become others."""
_EXCHANGED = 0.75
_INVENTED = {"place": 0.6, "town": 0.4, "food": 0.3}
_FORGOTTEN, _UNHEARD, _MISHEARD = 0.1, 0.08, 0.08
"""Shares of slots of the state so far and of words that are left out, and of words that become others, these in a part
of the examples."""
_LISTED = 0.35
"""Share of the prompts that list slots."""
_PLAIN_PROMPTS = (
    "{domain}",
    "track the {domain}",
    "what does the user want of the {domain}",
    "you keep track of what the user wants of {a} {domain}",
)
_RECALL_PROMPT = "repeat the {domain}"
_LISTS = (
    "{domain} : {slots}",
    "{domain} slots {slots}",
    "you keep track of what the user wants of {a} {domain} : {slots}",
)

_KINDS = {
    "name": "place",
    "food": "food",
    "area": "area",
    "pricerange": "pricerange",
    "day": "day",
    "book day": "day",
    "stars": "number",
    "book people": "number",
    "book stay": "number",
    "arriveby": "time",
    "leaveat": "time",
    "book time": "time",
}
"""Which values stand for each other; those of other slots, such as `parking`, are seldom said in so many words."""
_CONSONANTS, _VOWELS, _ENDS = "bcdfghjklmnpqrstvwz", "aeiou", ("", "", "n", "r", "l", "s", "t", "nd", "ck", "th")


def read_parts(source: str | Path, sizes: Sequence[int], *, seed: int) -> list[list[Dialogue]]:
    """The dialogues of a few-shot file in parts of given sizes, drawn at random, and at last the rest.

    Args:
        source: a few-shot file of dialogues.
        sizes: dialogues of each part before the last, which gets the rest.
        seed: of the choice.

    Raises:
        ConfigError: none are left for a part.
        DataError: as `read_turns` and `read_fewshot_dialogue`.
    """
    dialogues = [read_fewshot_dialogue(id, turns) for id, turns in read_turns(source).items()]
    if min(sizes, default=1) < 1 or sum(sizes) >= len(dialogues):
        hint = f"use 1 or more, together fewer than the {len(dialogues)} dialogues of {source}"
        raise ConfigError(f"parts of {', '.join(map(str, sizes))} dialogues", hint=hint)
    order = random.Random(f"parts/{seed}").sample(range(len(dialogues)), len(dialogues))
    parts: list[list[Dialogue]] = []
    for size in (*sizes, len(dialogues) - sum(sizes)):
        parts.append([dialogues[number] for number in sorted(order[:size])])
        order = order[size:]
    return parts


def draw_examples(
    dialogues: Sequence[Dialogue], seed: str, num_examples: int, *, augmented: bool = True
) -> Iterator[dict[str, str]]:
    """Training examples {domain, prompt, message, answer}, a function of the arguments.

    Args:
        dialogues: what they are made of.
        seed: any text.
        num_examples: how many.
        augmented: with other values, other matters and noise; not to validate on.

    Raises:
        DataError: dialogues in which nothing ever changes, or something in all domains always.
    """
    # Named as ever: the same examples for the same seed.
    rng = random.Random(f"lessons/{seed}")
    found = [(dialogue, each) for dialogue in dialogues for each in exchanges(dialogue)]
    cases: dict[str, list[tuple[Exchange, str]]] = defaultdict(list)
    for dialogue, exchange in found:
        changed = {domain_of(slot) for slot in exchange.change}
        for domain in DOMAINS:
            kind = "saying" if domain in changed else "near" if domain in dialogue.domains else "far"
            cases[kind].append((exchange, domain))
    if not cases["saying"] or not (cases["near"] or cases["far"]):
        raise DataError(f"{len(dialogues)} dialogues with too little change", hint="give more training dialogues")
    pools = value_pools(exchange for _, exchange in found)
    first = [exchange for _, exchange in found if not exchange.system and exchange.change]
    told = [exchange for _, exchange in found if exchange.before]
    for _ in range(num_examples):
        if augmented and rng.random() < _RECALLED:
            yield _recall(rng, with_other_values(rng, rng.choice(told), pools))
            continue
        kind = "saying" if rng.random() < _SAYING else "near" if rng.random() < _NEAR else "far"
        exchange, domain = rng.choice(cases[kind] or cases["far"] or cases["near"])
        if augmented:
            if rng.random() < _JOINED:
                exchange = joined(rng, exchange, rng.choice(first))
            exchange = with_noise(rng, with_other_values(rng, exchange, pools), pools.said, _NOISY)
        yield _example(rng, exchange, domain)


def draw_tasks(dialogues: Sequence[Dialogue], seed: str, num_tasks: int) -> Iterator[JsonDict]:
    """Turns as tasks for training agents, with other values and noise as examples have them; each as often as another.

    Args:
        dialogues: what they are made of.
        seed: any text.
        num_tasks: how many.
    """
    rng = random.Random(f"tasks/{seed}")
    found = [(dialogue, *each) for dialogue in dialogues for each in enumerate(exchanges(dialogue))]
    pools = value_pools(exchange for _, _, exchange in found)
    for row in range(num_tasks):
        dialogue, number, exchange = rng.choice(found)
        exchange = with_noise(rng, with_other_values(rng, exchange, pools), pools.said, _NOISY_TASKS)
        task = change_task(dialogue, number, exchange)
        yield {**task, "id": f"{task['id']}/{row}"}


def _example(rng: random.Random, exchange: Exchange, domain: str) -> dict[str, str]:
    slots = list(SLOTS[domain])
    named = {"domain": domain, "a": "an" if domain[0] in _VOWELS else "a"}
    prompt = rng.choice(_PLAIN_PROMPTS).format(**named)
    if rng.random() < _LISTED:
        if rng.random() < 0.5:
            slots = rng.sample(slots, rng.randint(1, len(slots)))
        rng.shuffle(slots)
        prompt = rng.choice(_LISTS).format(**named, slots=", ".join(slots))
    change = {f"{domain}-{slot}": exchange.change.get(f"{domain}-{slot}") for slot in SLOTS[domain] if slot in slots}
    answer = write_change({slot: value for slot, value in change.items() if value is not None}, domain)
    return {"domain": domain, "prompt": prompt, "message": _message(exchange), "answer": answer}


def _recall(rng: random.Random, exchange: Exchange) -> dict[str, str]:
    domain = rng.choice(sorted({domain_of(slot) for slot in exchange.before}))
    return {
        "domain": domain,
        "prompt": _RECALL_PROMPT.format(domain=domain),
        "message": _message(exchange),
        "answer": write_change(exchange.before, domain),
    }


def _message(exchange: Exchange) -> str:
    return TEMPLATE.format(
        state=write_state(exchange.before), system=exchange.system or NOTHING_SAID, user=exchange.user
    )


def kind_of(slot: str) -> str | None:
    """Which values may stand in a slot's place; None where they stay."""
    domain, _, part = slot.partition("-")
    if part in ("departure", "destination"):
        return "town" if domain == "train" else "place"
    if part == "type" and domain == "attraction":
        return "attraction"
    return _KINDS.get(part)


@dataclass(frozen=True, kw_only=True)
class Pools:
    """Values to draw from.

    Attributes:
        values: by kind, those of the labels.
        words: of which names of places and towns are made.
        said: all words of the texts, as often as they were said.
    """

    values: Mapping[str, Sequence[str]]
    words: Sequence[str]
    said: Sequence[str]


def value_pools(found: Iterable[Exchange]) -> Pools:
    """The values of the labels."""
    values: dict[str, set[str]] = defaultdict(set)
    said: list[str] = []
    for exchange in found:
        said += exchange.user.split()
        for slot, value in exchange.change.items():
            kind = kind_of(slot)
            if kind is not None and value not in ("", DONTCARE):
                values[kind].add(value)
    words = {word for kind in ("place", "town", "food") for value in values[kind] for word in value.split()}
    return Pools(
        values={kind: sorted(known) for kind, known in values.items()}, words=sorted(words) or ["house"], said=said
    )


def with_other_values(rng: random.Random, exchange: Exchange, pools: Pools) -> Exchange:
    """The exchange with other values, in texts and states alike. A value that is said in other words stays.

    Args:
        rng: of all choices.
        exchange: a turn.
        pools: values to choose from, by slot.
    """
    others: dict[str, str] = {}
    said = f" {exchange.system} {exchange.user} "
    for slot, value in {**exchange.before, **exchange.change}.items():
        kind = kind_of(slot)
        if kind is None or value in ("", DONTCARE) or value in others or rng.random() >= _EXCHANGED:
            continue
        if f" {value} " in said or value in exchange.before.values():
            others[value] = _other(rng, kind, pools)
    if not others:
        return exchange
    pattern = re.compile(rf"(?<!\S)({'|'.join(map(re.escape, sorted(others, key=len, reverse=True)))})(?!\S)")

    def text(before: str) -> str:
        return pattern.sub(lambda match: others[match[1]], before)

    def state(before: State) -> State:
        return {slot: others.get(value, value) if kind_of(slot) else value for slot, value in before.items()}

    return Exchange(
        before=state(exchange.before),
        system=text(exchange.system),
        user=text(exchange.user),
        change=state(exchange.change),
    )


def joined(rng: random.Random, exchange: Exchange, other: Exchange) -> Exchange:
    """The exchange with what another user says first of other domains; the same where a domain is in both.

    Args:
        rng: of all choices.
        exchange: a turn.
        other: whose matter the user begins with.
    """
    domains = {domain_of(slot) for slot in (*exchange.change, *exchange.before)}
    if domains & set(map(domain_of, other.change)):
        return exchange
    said = [exchange.user, other.user]
    rng.shuffle(said)
    return replace(exchange, user=" ".join(said), change={**exchange.change, **other.change})


def with_noise(rng: random.Random, exchange: Exchange, others: Sequence[str], share: float) -> Exchange:
    """The exchange without some slots of the state so far and, with a probability, some words or others for them.

    What the change needs stays.

    Args:
        rng: of all choices.
        exchange: a turn.
        others: words to mishear.
        share: probability that words change, 0 to 1.
    """
    needed = set(exchange.change.values())
    slots = exchange.change.keys()
    before = {
        slot: value
        for slot, value in exchange.before.items()
        if value in needed or slot in slots or rng.random() >= _FORGOTTEN
    }
    exchange = replace(exchange, before=before)
    if rng.random() >= share:
        return exchange
    kept = {word for value in needed for word in value.split()} | {*DOMAINS}

    def text(heard: str) -> str:
        words = [
            word if word in kept or rng.random() >= _MISHEARD else rng.choice(others)
            for word in heard.split()
            if word in kept or rng.random() >= _UNHEARD
        ]
        return " ".join(words) or heard

    return replace(exchange, system=text(exchange.system), user=text(exchange.user))


def _other(rng: random.Random, kind: str, pools: Pools) -> str:
    if kind == "time":
        return f"{rng.randrange(24):02d}:{5 * rng.randrange(12):02d}"
    if kind == "number":
        return str(rng.randint(1, 8))
    if rng.random() < _INVENTED.get(kind, 0.0):
        return " ".join(_word(rng, pools.words) for _ in range(rng.choice((1, 2, 2, 3))))
    return rng.choice(pools.values[kind])


def _word(rng: random.Random, words: Sequence[str]) -> str:
    if rng.random() < 0.5:
        return rng.choice(words)
    return "".join(
        rng.choice(_CONSONANTS) + rng.choice(_VOWELS) + rng.choice(_ENDS) for _ in range(rng.choice((1, 2, 2, 3)))
    )
