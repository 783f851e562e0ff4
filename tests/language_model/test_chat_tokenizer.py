"""The chat template of small worlds, by hand."""

from tokenizers import Tokenizer, models, pre_tokenizers

from framework.language_model.chat_tokenizer import END, PAD, SPECIAL, UNKNOWN, as_chat_tokenizer


def test_prompts_and_messages_by_hand():
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, "be", "brief", "hello"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    chat = as_chat_tokenizer(tokenizer)
    assert (chat.pad_token, chat.eos_token, chat.unk_token) == (PAD, END, UNKNOWN)
    assert (chat.pad_token_id, chat.eos_token_id) == (0, 1)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello stranger"}]
    text = chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<system> be brief <user> hello stranger <assistant>"
    assert isinstance(text, str)
    words = ["<system>", "be", "brief", "<user>", "hello", UNKNOWN, "<assistant>"]
    assert chat.convert_ids_to_tokens(chat(text, add_special_tokens=False)["input_ids"]) == words
