"""Special tokens and the chat template that the small worlds' tokenizers share."""

from tokenizers import Tokenizer, models, pre_tokenizers

from framework.language_model.chat_tokenizer import END, PAD, SPECIAL, UNKNOWN, as_chat_tokenizer


def make_tokenizer():
    words = {word: number for number, word in enumerate((*SPECIAL, "say", "hello", "well"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return as_chat_tokenizer(tokenizer)


def test_the_special_tokens_come_first():
    tokenizer = make_tokenizer()
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.unk_token) == (PAD, END, UNKNOWN)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == list(range(len(SPECIAL)))
    assert tokenizer("hello stranger", add_special_tokens=False)["input_ids"] == [
        len(SPECIAL) + 1,
        SPECIAL.index(UNKNOWN),
    ]


def test_the_template_by_hand():
    tokenizer = make_tokenizer()
    messages = [{"role": "system", "content": "say well"}, {"role": "user", "content": "hello"}]
    shown = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown == "<system> say well <user> hello <assistant>"
    assert tokenizer.apply_chat_template(messages[1:], tokenize=False) == "<user> hello "
