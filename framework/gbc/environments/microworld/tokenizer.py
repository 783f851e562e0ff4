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

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
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
    special = [PAD, END, UNKNOWN, "<system>", "<user>", "<assistant>"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
