"""What the tokenizers of small worlds share: special tokens and a chat template (ours)."""

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
SPECIAL = (PAD, END, UNKNOWN, "<system>", "<user>", "<assistant>")
_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def as_chat_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary begins with `SPECIAL`, for models that are told prompts and messages."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
