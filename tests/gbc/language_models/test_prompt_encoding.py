"""Spans of blocks: templates that trim, escape, repeat and drop; merges over the border; characters of many tokens."""

import json

import pytest

from framework.core.errors import ConfigError
from framework.gbc.language_models.interface import Piece, Request
from framework.gbc.language_models.local import LocalModelConfig
from framework.gbc.language_models.prompt_encoding import render_blocks
from framework.testing.language_models import CHATML, GEMMA, tiny_local_model, tiny_tokenizer

AWKWARD = ["  spaced out \n", "héllo 世界 🙂🙂", "user: {braces} %} <b>", "\ue000\ue001", "", "area=north"]


def request(*pieces: tuple[str, str | None], prompt: str = "Be brief.") -> Request:
    return Request(step="me", prompt=prompt, pieces=tuple(Piece(text=t, source=s) for t, s in pieces), max_new_tokens=1)


@pytest.mark.parametrize("kind", ["bytes", "metaspace"])
@pytest.mark.parametrize("template", [CHATML, GEMMA, None], ids=["chatml", "gemma", "plain"])
def test_every_block_is_found_exactly(kind, template):
    model = tiny_local_model(
        "llama",
        tokenizer=tiny_tokenizer(kind=kind, template=template),
        system_role="user" if template == GEMMA else "system",
        plain_format=None if template else "{prompt}{message}\n",
    )
    pieces = [(text, f"n{i}") for i, text in enumerate(AWKWARD)]
    asked = request(*(p for pair in zip(pieces, [(";", None)] * len(pieces), strict=True) for p in pair))
    encoded = model.encode(asked)
    assert [block.source for block in encoded.blocks] == ["me", *(source for _, source in pieces)]
    for block, text in zip(encoded.blocks, ["Be brief.", *AWKWARD], strict=True):
        assert block.text == text.strip() == encoded.text[slice(*block.chars)]
        assert (block.tokens[0] == block.tokens[1]) == (not block.text)
        # Every character of the block lies in its tokens.
        spans = encoded.spans[slice(*block.tokens)]
        covered = {place for start, stop in spans for place in range(start, stop)}
        wanted = {p for p in range(*block.chars) if not encoded.text[p].isspace()}
        assert wanted <= covered
    # No token in two blocks.
    bounds = [place for block in encoded.blocks for place in block.tokens]
    assert bounds == sorted(bounds)


def test_equal_blocks_have_their_own_places():
    encoded = tiny_local_model().encode(request(("same", "a"), (" same same ", None), ("same", "b")))
    prompt, first, second = encoded.blocks
    assert encoded.text.count("same") == 4
    assert first.chars < second.chars
    assert encoded.text[first.chars[0] : second.chars[1]] == "same same same same"
    assert prompt.kind == "prompt"


def test_merges_over_the_border_of_a_block():
    # This tokenizer merges over words: "==x " is one token, with characters of the template on both sides.
    tokenizer = tiny_tokenizer(kind="metaspace", texts=["==x " * 50], template=None)
    model = tiny_local_model(tokenizer=tokenizer, plain_format="{prompt}{message}")
    encoded = model.encode(request(("==", None), ("x", "a"), (" ", None)))
    _, block = encoded.blocks
    (token,) = range(*block.tokens)
    start, stop = encoded.spans[token]
    assert encoded.text[start:stop].strip() != block.text
    assert start < block.chars[0] < block.chars[1] <= stop


def test_templates_that_escape_are_followed():
    def render(prompt: str, message: str) -> str:
        return f"<<{prompt}>>" + json.dumps({"content": message}, ensure_ascii=False)

    text, blocks = render_blocks(render, request(('say "no"', "a"), ("\n", None), ("b", "b")))
    assert [block.text for block in blocks] == ["Be brief.", 'say \\"no\\"', "b"]
    assert all(text[slice(*block.chars)] == block.text for block in blocks)


def test_blocks_come_in_the_order_of_the_text():
    _, blocks = render_blocks(lambda prompt, message: message + prompt, request(("hi", "a")))
    assert [block.kind for block in blocks] == ["message", "prompt"]


@pytest.mark.parametrize(
    ("render", "words"),
    [
        (lambda prompt, message: message, "drops the prompt"),
        (lambda prompt, message: prompt + message + message, "twice"),
        (lambda prompt, message: f"{len(message)}{prompt}{message}", "another text"),
    ],
)
def test_templates_that_cannot_be_followed(render, words):
    with pytest.raises(ConfigError, match=words):
        render_blocks(render, request(("hi", "a")))


def test_plain_formats_name_both_parts():
    with pytest.raises(ConfigError, match="plain_format"):
        LocalModelConfig(path="", plain_format="{prompt} only")
