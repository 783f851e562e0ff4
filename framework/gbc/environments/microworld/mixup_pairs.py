"""Mixup pairs of examples: the same example but for one word, with the answer to that (ours)."""

import random
import re
from collections.abc import Mapping

from framework.gbc.environments.microworld.rules import answer
from framework.gbc.environments.microworld.system import (
    DOMAINS,
    FIELDS,
    FULL,
    NAMES,
    NONE,
    NOTHING,
    REST,
    SHORT,
    STYLES,
)

_KINDS: tuple[tuple[str, ...], ...] = (
    (*SHORT, *FULL, NONE),
    (*FIELDS, NOTHING),
    STYLES,
    (*DOMAINS, REST),
    (*DOMAINS, NOTHING),
    (*NAMES, NONE),
)
"""Words that can stand in each other's place."""
_MOST_KINDS = 3
_MOST_WORDS = 8


def draw_pair(rng: random.Random, example: Mapping[str, str]) -> dict[str, str] | None:
    """A pair {prompt, message, answer} whose answer is another, of as many words; None where none was found."""
    texts = {"prompt": re.split(r"(\s)", example["prompt"]), "message": re.split(r"(\s)", example["message"])}
    places: dict[tuple[str, int], list[int]] = {}
    for part, words in texts.items():
        # Who an agent is stays as it is.
        first = words.index("\n") if part == "message" and " serves " in example["message"].partition("\n")[0] else 0
        for index, word in enumerate(words[first:], first):
            for kind, others in enumerate(_KINDS):
                if word in others:
                    places.setdefault((part, kind), []).append(index)
    # Kinds first: those that seldom matter, such as who is sent, come as often as values.
    for part, kind in rng.sample(list(places), min(_MOST_KINDS, len(places))):
        found = places[part, kind]
        for index in rng.sample(found, min(_MOST_WORDS, len(found))):
            words = list(texts[part])
            words[index] = rng.choice([word for word in _KINDS[kind] if word != words[index]])
            pair = {name: example[name] for name in ("prompt", "message")} | {part: "".join(words)}
            said = answer(pair["prompt"], pair["message"])
            if said != example["answer"] and len(said.split()) == len(example["answer"].split()):
                return {**pair, "answer": said}
    return None
