"""Differences of prompts: both texts come out of them again, and they read well."""

import random
from itertools import pairwise

import pytest

from framework.gbc.tracking.prompt_diff import Part, difference, marked, shortened


def test_words_by_hand():
    parts = difference("Name the hotel.", "Name the cheap hotel, please.")
    assert [(part.kind, part.text) for part in parts] == [
        ("same", "Name the"),
        ("added", " cheap"),
        ("same", " hotel"),
        ("added", ", please"),
        ("same", "."),
    ]
    assert marked(parts) == "Name the{+ cheap+} hotel{+, please+}."


def test_a_single_word_is_no_island():
    parts = difference("one two three", "four two five")
    assert parts == (Part(kind="removed", text="one two three"), Part(kind="added", text="four two five"))
    assert [part.kind for part in difference("one two too three", "four two too five")] == [
        "removed", "added", "same", "removed", "added",
    ]  # fmt: skip


def sides(parts: tuple[Part, ...]) -> tuple[str, str]:
    old, new = ("".join(part.text for part in parts if part.kind in ("same", kind)) for kind in ("removed", "added"))
    return old, new


@pytest.mark.parametrize("lengths", [(0, 5), (3, 0), (9, 7), (400, 390), (4000, 10)])
def test_both_texts_come_out_again(lengths: tuple[int, int]):
    generator = random.Random(0)
    words = ["a", "b", "hotel", "\n", " ", "\n\n", "area.", "<price>", "ü"]
    before, after = ("".join(generator.choice(words) + " " * (n % 2) for n in range(count)) for count in lengths)
    parts = difference(before, after)
    assert sides(parts) == (before, after)
    assert all(one.kind != other.kind for one, other in pairwise(parts))
    assert difference(before, before) == ((Part(kind="same", text=before),) if before else ())


def test_long_texts_are_compared_by_lines_and_shortened():
    lines = [f"This is line number {number} of a long prompt.\n" for number in range(200)]
    changed = [*lines[:100], "Something else.\n", *lines[101:]]
    parts = difference("".join(lines), "".join(changed))
    assert [part.text for part in parts if part.kind != "same"] == [lines[100], "Something else.\n"]
    first, *middle, last = shortened(parts)
    assert first.text == "[...]\n" + "".join(lines[98:100])
    assert last.text == "".join(lines[101:103]) + "[...]\n"
    assert tuple(middle) == parts[1:-1]


def test_far_too_long_texts_are_replaced():
    before, after = "a\n" * 3000, "b\n" * 3000
    assert difference(before, after) == (Part(kind="removed", text=before), Part(kind="added", text=after))
