"""A tokenizer for MultiWOZ, learned from the training dialogues: pieces of words (ours).

A word is split in the same way wherever it stands, so that a value can be copied token by token from what was said.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from framework.core.errors import ConfigError
from framework.gbc.environments.multiwoz.dataset.dialogues import Dialogue
from framework.gbc.environments.multiwoz.dataset.slots import SLOTS
from framework.gbc.environments.multiwoz.state_tracking.turns import exchanges, write_state
from framework.language_model.chat_tokenizer import SPECIAL, UNKNOWN, as_chat_tokenizer

_ALPHABET = list("abcdefghijklmnopqrstuvwxyz0123456789:=;,.|?!()/#")
_PIECE = "##"
_LEAST = 3
"""How often a pair of pieces must be seen to become one."""


def learn_tokenizer(dialogues: Sequence[Dialogue], *, vocabulary_size: int = 1536) -> PreTrainedTokenizerFast:
    """Byte-pair encoding (Sennrich et al. 2016) of lower-cased words, with a chat template.

    Args:
        dialogues: of the training set.
        vocabulary_size: most tokens, with the special ones.

    Raises:
        ConfigError: too few tokens for the alphabet.
    """
    least = len(SPECIAL) + 2 * len(_ALPHABET)
    if vocabulary_size < least:
        raise ConfigError(f"a vocabulary of {vocabulary_size} tokens", hint=f"use {least} or more")
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            # A slot's name is one word with its sign: it is not a word of the dialogue.
            pre_tokenizers.Split(Regex("="), "merged_with_previous"),
            # A time is its hour and its minutes: few tokens, each seen often.
            pre_tokenizers.Split(Regex(":"), "merged_with_next"),
            pre_tokenizers.Split(Regex(r"[;,|?!()/]|[.](?!\d)"), "isolated"),
        ]
    )
    words = Counter(word for text in _texts(dialogues) for word, _ in splitter.pre_tokenize_str(text.lower()))
    merges = learn_merges(words, vocabulary_size - least)
    tokens = [*SPECIAL, *_ALPHABET, *(_PIECE + letter for letter in _ALPHABET), *map(_merged, merges)]
    # The same piece may come of two merges.
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=UNKNOWN, continuing_subword_prefix=_PIECE)
    )
    tokenizer.add_special_tokens(list(SPECIAL))  # pyright: ignore[reportUnknownMemberType]
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(prefix=_PIECE, cleanup=False)
    return as_chat_tokenizer(tokenizer)


def learn_merges(words: Mapping[str, int], most: int) -> list[tuple[str, str]]:
    """The pairs of pieces to be joined, the most frequent first, of equals the first in the alphabet.

    Not by the library's trainer: its choice among equals is another in every process (decision 032).

    Args:
        words: how often each was seen; those with other letters than the alphabet's are left out.
        most: how many pairs.
    """
    known = {word: count for word, count in sorted(words.items()) if set(word) <= set(_ALPHABET)}
    spelt = {word: [word[0], *(_PIECE + letter for letter in word[1:])] for word in known}
    counts: Counter[tuple[str, str]] = Counter()
    places: dict[tuple[str, str], set[str]] = defaultdict(set)
    for word, pieces in spelt.items():
        for pair in pairwise(pieces):
            counts[pair] += known[word]
            places[pair].add(word)
    merges: list[tuple[str, str]] = []
    while len(merges) < most and counts:
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < _LEAST:
            break
        merges.append(best)
        for word in places.pop(best):
            before = spelt[word]
            spelt[word] = after = _joined(before, best)
            for pair in pairwise(before):
                counts[pair] -= known[word]
            for pair in pairwise(after):
                counts[pair] += known[word]
                places[pair].add(word)
        del counts[best]
    return merges


def _joined(pieces: Sequence[str], pair: tuple[str, str]) -> list[str]:
    found: list[str] = []
    index = 0
    while index < len(pieces):
        if tuple(pieces[index : index + 2]) == pair:
            found.append(_merged(pair))
            index += 2
        else:
            found.append(pieces[index])
            index += 1
    return found


def _merged(pair: tuple[str, str]) -> str:
    return pair[0] + pair[1].removeprefix(_PIECE)


def _texts(dialogues: Iterable[Dialogue]) -> Iterator[str]:
    # All slots and times, whether they come up or not.
    for _ in range(_LEAST):
        for domain, slots in SLOTS.items():
            yield f"{domain} {', '.join(slots)} {' '.join(f'{slot}=' for slot in slots)}"
        yield from (f"{hour:02d}:{minute:02d}" for hour in range(24) for minute in range(0, 60, 5))
    for dialogue in dialogues:
        for exchange in exchanges(dialogue):
            yield exchange.system
            yield exchange.user
            yield write_state(exchange.change)
