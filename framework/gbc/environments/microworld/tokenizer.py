"""The micro world's tokenizer: a token for each word, and a chat template."""

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from framework.gbc.environments.microworld.system import (
    DATABASES,
    DOMAINS,
    FIELDS,
    NAMES,
    NONE,
    NOTHING,
    REST,
    STYLES,
    VALUES,
    WORKERS,
)
from framework.language_model.chat_tokenizer import SPECIAL, UNKNOWN, as_chat_tokenizer

_WORDS = "manager serves worker responder from : , and please book i need am looking for find me"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer; words that the world does not know are one token, `<unknown>`."""
    words = [
        *_WORDS.split(),
        *(f"{domain}-{field}" for domain in DOMAINS for field in (*FIELDS, "name")),
        *(word for values in VALUES.values() for pair in values.items() for word in pair),
        *(f"{node}:" for node in ("user", "manager", *WORKERS, *DATABASES)),
        *(*DOMAINS, *FIELDS, *WORKERS, *NAMES, *STYLES, NONE, NOTHING, REST),
    ]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return as_chat_tokenizer(tokenizer)
