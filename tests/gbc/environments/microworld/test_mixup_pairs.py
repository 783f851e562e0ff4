"""Twins of lessons differ in one word, and in the answer."""

from framework.gbc.environments.microworld.rules import answer
from framework.gbc.environments.microworld.training_examples import draw_lessons


def test_twins_differ_in_one_word_and_in_the_answer():
    lessons = [lesson for lesson in draw_lessons("t", 300) if "twin" in lesson]
    assert len(lessons) > 100
    for lesson in lessons:
        twin = lesson["twin"]
        assert answer(twin["prompt"], twin["message"]) == twin["answer"] != lesson["answer"]
        words, others = ([*each["prompt"].split(), *each["message"].split()] for each in (lesson, twin))
        assert sum(word != other for word, other in zip(words, others, strict=True)) == 1
        assert len(twin["answer"].split()) == len(lesson["answer"].split())
